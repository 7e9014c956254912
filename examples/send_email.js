// An email through Resend. What it needs: the secret RESEND_API_KEY, the host api.resend.com, and your address below or in `from`.
const FROM = "Rootlink <rootlink@example.com>"; // of a domain that you have verified at Resend

export default async function sendEmail({ to, subject, text, from = FROM }, ctx) {
  const response = await fetch("https://api.resend.com/emails", {
    method: "POST",
    headers: {
      authorization: `Bearer ${ctx.env.RESEND_API_KEY}`,
      "content-type": "application/json",
      "idempotency-key": ctx.runId, // a run that is repeated has the id it had, and Resend then sends no second email
      "user-agent": "rootlink", // Resend refuses requests without one
    },
    body: JSON.stringify({ from, to: [].concat(to), subject, text }),
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(`Resend refused the email: ${answer.name}: ${answer.message}`);
  return { id: answer.id };
}
