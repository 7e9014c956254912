// ctx.tools: the other tools of the workspace. Which may be called, and how often, is decided by the host.
(bridge) => {
  'use strict';

  // Enumerable, so that what shows an error shows whose it is.
  const failed = (tool, { e, n }) => {
    const member = (value, enumerable) => ({ value, writable: true, enumerable, configurable: true });
    return Object.defineProperties(new Error(e), { name: member(n ?? 'ToolError', false), ...(tool === undefined ? {} : { tool: member(tool, true) }) });
  };

  const asked = async (call, kind, fields, tool) => {
    const answer = await new Promise((resolve) => bridge.post(call, kind, fields, resolve));
    if (answer.e !== undefined) throw failed(tool, answer);
    return answer;
  };

  return (call) => ({
    tools: {
      call: async (name, args) => {
        if (typeof name !== 'string') throw new TypeError('ctx.tools.call needs the name of a tool, a string');
        const given = args ?? {};
        const a = typeof given === 'object' ? JSON.stringify(given) : undefined; // text, so that what can't be read ends this call alone
        if (a?.[0] !== '{') throw new TypeError('ctx.tools.call needs the arguments to be an object');
        const tool = bridge.text(name);
        const { v, t } = await asked(call, 'tool', { name: tool, a }, tool);
        v.text = t;
        return v;
      },
      list: async () => (await asked(call, 'tools', {})).v,
    },
  });
};
//# sourceURL=rootlink:tools
