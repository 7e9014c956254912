// A receiver of GitHub's webhooks: whoever opens an issue or a pull request causes an email. What it needs: the secrets
// GITHUB_WEBHOOK_SECRET (the one GitHub was given) and ALERTS_TO, and the tool function__send_email.
//
// Its own URL is a secret already. GitHub's signature says besides that it was GitHub who sent this, and that nothing was changed.
const WATCHED = { issues: "issue", pull_request: "pull request" };

async function isFromGitHub(request, secret) {
  const given = /^sha256=([0-9a-f]{64})$/.exec(request.headers["x-hub-signature-256"] ?? "");
  if (given === null) return false;
  const bytes = new TextEncoder();
  const key = await crypto.subtle.importKey("raw", bytes.encode(secret), { name: "HMAC", hash: "SHA-256" }, false, ["verify"]);
  return crypto.subtle.verify("HMAC", key, Uint8Array.fromHex(given[1]), bytes.encode(request.body));
}

export default async (request, ctx) => {
  if (!(await isFromGitHub(request, ctx.env.GITHUB_WEBHOOK_SECRET))) return new Response("not GitHub's signature", { status: 401 });

  const kind = WATCHED[request.headers["x-github-event"]];
  const event = JSON.parse(request.body);
  if (kind === undefined || event.action !== "opened") return Response.json({ ignored: true });

  const { title, html_url, user } = event.issue ?? event.pull_request;
  await ctx.tools.call("function__send_email", {
    to: ctx.env.ALERTS_TO,
    subject: `New ${kind} in ${event.repository.full_name}: ${title}`,
    text: `${user.login} opened it: ${html_url}`,
  });
  return Response.json({ sent: true });
};
