// fetch: the request is checked and encoded here, decided and made by the host. An answer that came whole is in the answer of the one
// operation; of a larger or slower one the first piece is, and the rest is asked for piece by piece, as somebody reads.
(bridge) => {
  'use strict';
  const MAX_REQUEST = 8 << 20; // bytes, or characters of text
  const WITHOUT_BODY = [101, 204, 205, 304];
  const http = () => bridge.need('http');
  const nothing = () => {};

  // [url, parts]: of a Request, or of an address as it is: the host reads it, and says what is wrong with it.
  const requestOf = (input, init) => {
    const { isRequest, partsOf } = http();
    return isRequest(input) ? [input.url, partsOf(input, init, MAX_REQUEST)] : [bridge.text(input), partsOf(null, init, MAX_REQUEST)];
  };

  const encoded = async (source, signal) => {
    if (source === null) return {};
    const whole = http().isStream(source) ? await collected(source, signal) : source;
    if (whole.length > MAX_REQUEST) throw new TypeError(`fetch: the body of a request may have at most ${MAX_REQUEST} bytes`);
    return typeof whole === 'string' ? { b: whole } : { x: whole.toBase64() };
  };

  const collected = async (stream, signal) => {
    const { collect, abandon } = bridge.need('streams');
    const stop = signal === null ? nothing : bridge.need('abort').follow(signal, (reason) => abandon(stream, reason));
    const bytes = await collect(stream, MAX_REQUEST).finally(stop);
    if (signal?.aborted) throw signal.reason;
    return bytes;
  };

  const exchange = (call, event, signal) =>
    new Promise((resolve, reject) => {
      let stop = nothing;
      const operation = bridge.post(call, 'fetch', event, (answer) => {
        stop();
        resolve([operation, answer]);
      });
      if (signal === null) return;
      stop = bridge.need('abort').follow(signal, (reason) => {
        bridge.cancel(call, operation);
        reject(reason);
      });
    });

  // The body of an answer that goes on: its first piece is here.
  const rest = (call, operation, first, signal) => {
    let stop = nothing;
    let piece = first.length > 0 ? first : null;
    const pull = async () => {
      let [chunk, over] = [piece, false];
      piece = null;
      if (chunk === null) {
        const answer = bridge.judge(await new Promise((resolve) => bridge.post(call, 'read', { s: operation }, resolve)));
        [chunk, over] = [Uint8Array.fromBase64(answer.x), answer.d];
      }
      if (over) stop();
      return [chunk.length > 0 ? chunk : null, over];
    };
    const cancel = () => {
      stop();
      bridge.stop(call, operation);
    };
    const { stream, fail } = bridge.need('streams').source(pull, cancel);
    if (signal !== null) {
      stop = bridge.need('abort').follow(signal, (reason) => {
        fail(reason);
        bridge.stop(call, operation);
      });
    }
    return stream;
  };

  // `t`: the body, whole, was UTF-8; `x`: it was not, or it goes on (`o`), and is base64.
  const bodyOf = (call, operation, method, { s, t, x, o }, signal) => {
    if (method === 'HEAD' || WITHOUT_BODY.includes(s)) return null;
    if (t !== undefined) return t;
    const bytes = Uint8Array.fromBase64(x);
    return o ? rest(call, operation, bytes, signal) : bytes;
  };

  return {
    fetch: (call) => async (input, init) => {
      const [url, { method, headers, source, redirect, signal }] = requestOf(input, init ?? {});
      if (signal?.aborted) {
        if (http().isStream(source)) bridge.need('streams').abandon(source, signal.reason);
        throw signal.reason;
      }
      const body = await encoded(source, signal);
      const event = { u: url, m: method, h: http().pairsIn(headers), ...body, r: redirect };
      const [operation, answer] = await exchange(call, event, signal);
      const { s, st, u, h, d } = bridge.judge(answer);
      const parts = { status: s, statusText: st, url: u, redirected: d === true, type: 'basic' };
      return http().answer(bodyOf(call, operation, method, answer, signal), http().seal(http().headersOf(h)), parts);
    },
  };
};
//# sourceURL=rootlink:fetch
