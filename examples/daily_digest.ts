// What moved in a GitHub repository since yesterday, as one email. Made for a schedule; its input says which repository and for whom.
// What it needs: the host api.github.com and the tool function__send_email; for private repositories the secret GITHUB_TOKEN.
interface Input {
  repository: string;
  to: string;
  hours?: number;
}

interface Item {
  number: number;
  title: string;
  state: "open" | "closed";
  html_url: string;
  updated_at: string;
  pull_request?: object;
}

async function moved(repository: string, since: Date, token?: string): Promise<Item[]> {
  const url = new URL(`https://api.github.com/repos/${repository}/issues`);
  url.search = new URLSearchParams({ state: "all", sort: "updated", per_page: "50", since: since.toISOString() }).toString();
  const headers = new Headers({ accept: "application/vnd.github+json", "user-agent": "rootlink" });
  if (token !== undefined) headers.set("authorization", `Bearer ${token}`);
  const response = await fetch(url, { headers });
  if (!response.ok) throw new Error(`GitHub answered ${response.status} for ${repository}`);
  return (await response.json()) as Item[];
}

const line = (item: Item): string =>
  `- ${item.pull_request ? "PR" : "issue"} #${item.number} (${item.state}): ${item.title}\n  ${item.html_url}`;

export default async ({ repository, to, hours = 24 }: Input, ctx: any) => {
  const since = new Date(Date.now() - hours * 3_600_000);
  const items = await moved(repository, since, ctx.env.GITHUB_TOKEN);
  if (items.length === 0) {
    console.log(`nothing moved in ${repository} since ${since.toISOString()}: no email`);
    return { items: 0, sent: false };
  }
  await ctx.tools.call("function__send_email", {
    to,
    subject: `${repository}: ${items.length} ${items.length === 1 ? "thing" : "things"} moved`,
    text: items.map(line).join("\n"),
  });
  return { items: items.length, sent: true };
};
