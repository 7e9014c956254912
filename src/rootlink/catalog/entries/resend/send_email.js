async (input, ctx) => {
  const { to, subject, html, text, reply_to, cc, bcc } = input ?? {};
  const from = input?.from || ctx.env.DEFAULT_FROM;
  const recipients = [].concat(to ?? []);
  if (recipients.length === 0) throw new Error("Pass `to`: one address, or a list of up to 50.");
  if (!subject) throw new Error("Pass `subject`.");
  if (!html && !text) throw new Error("Pass `html` or `text`.");
  if (!from) throw new Error("Pass `from`, or connect with the input DEFAULT_FROM.");

  const response = await fetch("https://api.resend.com/emails", {
    method: "POST",
    headers: {
      "authorization": `Bearer ${ctx.env.RESEND_API_KEY}`,
      "content-type": "application/json",
      "idempotency-key": ctx.runId, // Resend honours it for 24 h: a request that is sent again sends no second email
      "user-agent": "rootlink", // Resend refuses requests without one
    },
    body: JSON.stringify({ from, to: recipients, subject, html, text, reply_to, cc, bcc }),
  });

  const body = await response.text();
  let answer = {};
  try {
    answer = JSON.parse(body) ?? {};
  } catch {} // an answer that is not JSON comes from something in between; its status says what there is to say
  if (!response.ok) {
    const why = [answer.name, answer.message].filter(Boolean).join(": ") || "without saying why";
    throw new Error(`Resend refused the email (HTTP ${response.status}): ${why}`);
  }
  if (!answer.id) throw new Error("Resend took the email but answered no id.");
  return { id: answer.id };
}
