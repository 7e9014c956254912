// fetch: the request is checked and encoded here, decided and made by the host. The whole body has arrived before it resolves.
(bridge) => {
  'use strict';
  const METHOD = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;
  const KNOWN = /^(?:get|head|post|put|patch|delete|options)$/i;
  const encoding = () => bridge.need('encoding');

  const methodOf = (given = 'GET') => {
    const method = bridge.text(given);
    if (!METHOD.test(method)) throw new TypeError(`fetch: ${method.slice(0, 40)} is not a method`);
    return KNOWN.test(method) ? method.toUpperCase() : method;
  };

  const pairsOf = (given) => {
    if (given === undefined || given === null) return [];
    if (typeof given !== 'object') throw new TypeError('fetch: headers must be an object or a list of pairs');
    const pairs = typeof given[Symbol.iterator] === 'function' ? [...given] : Object.entries(given);
    return pairs.map(([name, value]) => [bridge.text(name), bridge.text(value)]);
  };

  const viewOf = (value) => {
    if (value instanceof ArrayBuffer) return new Uint8Array(value);
    return ArrayBuffer.isView(value) ? new Uint8Array(value.buffer, value.byteOffset, value.byteLength) : null;
  };

  // [member of the event, its value, content type a browser would add]
  const bodyOf = (given) => {
    if (given === undefined || given === null) return ['b', null, null];
    const bytes = viewOf(given);
    if (bytes !== null) return ['x', bytes.toBase64(), null];
    const isForm = Object.prototype.toString.call(given) === '[object URLSearchParams]';
    return ['b', bridge.text(given), `${isForm ? 'application/x-www-form-urlencoded' : 'text/plain'};charset=UTF-8`];
  };

  const headersOf = (pairs) => {
    const headers = new Map(pairs);
    const read = {
      get: (name) => headers.get(bridge.text(name).toLowerCase()) ?? null,
      has: (name) => headers.has(bridge.text(name).toLowerCase()),
      entries: () => headers.entries(),
      keys: () => headers.keys(),
      values: () => headers.values(),
      forEach: (callback, self) => headers.forEach((value, name) => callback.call(self, value, name, read)),
      [Symbol.iterator]: () => headers.entries(),
    };
    return read;
  };

  // `t`: the body was UTF-8; `x`: it was not, and is base64. JSON.parse is told nothing of a byte order mark.
  const responseOf = ({ s, u, h, t, x }) => {
    const bytes = () => (t === undefined ? Uint8Array.fromBase64(x) : new (encoding().TextEncoder)().encode(t));
    const text = () => (t === undefined ? new (encoding().TextDecoder)().decode(bytes()) : t.replace(/^\uFEFF/, ''));
    return {
      status: s,
      ok: s >= 200 && s < 300,
      url: u,
      headers: headersOf(h),
      text: async () => text(),
      json: async () => JSON.parse(text()),
      arrayBuffer: async () => bytes().buffer,
    };
  };

  const requestOf = (resource, options) => {
    const method = methodOf(options.method);
    const headers = pairsOf(options.headers);
    const [member, body, type] = bodyOf(options.body);
    if (body !== null && (method === 'GET' || method === 'HEAD')) throw new TypeError(`fetch: a ${method} request has no body`);
    if (type !== null && !headers.some(([name]) => name.toLowerCase() === 'content-type')) headers.push(['content-type', type]);
    const redirect = bridge.text(options.redirect ?? 'follow');
    if (!['follow', 'error', 'manual'].includes(redirect)) throw new TypeError("fetch: redirect must be 'follow', 'error' or 'manual'");
    return { u: bridge.text(resource), m: method, h: headers, [member]: body, r: redirect };
  };

  return (call) => ({
    fetch: async (resource, options = {}) => {
      const request = requestOf(resource, options ?? {});
      const signal = options?.signal;
      if (signal?.aborted) throw signal.reason;
      const answer = await new Promise((resolve, reject) => {
        const operation = bridge.post(call, 'fetch', request, resolve);
        signal?.addEventListener('abort', () => {
          bridge.cancel(call, operation);
          reject(signal.reason);
        });
      });
      return responseOf(bridge.judge(answer));
    },
  });
};
//# sourceURL=rootlink:fetch
