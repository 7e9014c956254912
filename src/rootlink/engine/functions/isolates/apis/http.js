// Headers, Request and Response: https://fetch.spec.whatwg.org. A body is kept as what it was made of (text, bytes, a stream) until it
// is read, so that the common one, text or JSON that came whole, costs no more than its string.
(bridge) => {
  'use strict';
  const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;
  const MAX_WHOLE = 16 << 20; // bytes of a body that is read at once
  const INSIDE = Symbol('made by the platform');
  const streams = () => bridge.need('streams');
  const forms = () => bridge.need('forms');
  const encode = (text) => new (bridge.need('encoding').TextEncoder)().encode(text);

  // ── headers ────────────────────────────────────────────────────────────────────────────────────────────────────────────

  const nameOf = (given) => {
    const name = bridge.text(given);
    if (!TOKEN.test(name)) throw new TypeError(`Headers: ${JSON.stringify(name.slice(0, 40))} is not a header name`);
    return name.toLowerCase();
  };

  const valueOf = (given) => {
    const value = bridge.text(given).replace(/^[\t\n\r ]+|[\t\n\r ]+$/g, '');
    if (/[\0\r\n]/.test(value)) throw new TypeError('Headers: a value has no line breaks and no NUL');
    if (/[^\0-\xff]/.test(value)) throw new TypeError('Headers: a value has no characters above U+00FF');
    return value;
  };

  const pairsOf = (given) => {
    if (given === undefined) return [];
    if (typeof given !== 'object' && typeof given !== 'function' || given === null) throw new TypeError('headers must be an object or a list of pairs');
    if (typeof given[Symbol.iterator] !== 'function') return Object.entries(given);
    return [...given].map((pair) => {
      const [name, value, ...rest] = typeof pair === 'object' && pair !== null ? [...pair] : [];
      if (value === undefined || rest.length > 0) throw new TypeError('headers must be an object or a list of pairs, each a name and a value');
      return [name, value];
    });
  };

  let headersOf; // (pairs): without looking at them again
  let pairsIn; // (headers): [name in lower case, value] as they were put in
  let seal;

  class Headers {
    #pairs = [];
    #fixed = false;

    constructor(init) {
      for (const [name, value] of pairsOf(init)) this.append(name, value);
    }
    static {
      headersOf = (pairs) => {
        const headers = new Headers();
        headers.#pairs = pairs;
        return headers;
      };
      pairsIn = (headers) => headers.#pairs;
      seal = (headers) => {
        headers.#fixed = true;
        return headers;
      };
    }
    #change() {
      if (this.#fixed) throw new TypeError('Headers: these are immutable; copy them into new ones');
    }
    append(name, value) {
      const pair = [nameOf(name), valueOf(value)];
      this.#change();
      this.#pairs.push(pair);
    }
    delete(name) {
      const key = nameOf(name);
      this.#change();
      this.#pairs = this.#pairs.filter(([known]) => known !== key);
    }
    get(name) {
      const key = nameOf(name);
      const values = this.#pairs.filter(([known]) => known === key).map(([, value]) => value);
      return values.length > 0 ? values.join(', ') : null;
    }
    getSetCookie() {
      return this.#pairs.filter(([name]) => name === 'set-cookie').map(([, value]) => value);
    }
    has(name) {
      const key = nameOf(name);
      return this.#pairs.some(([known]) => known === key);
    }
    set(name, value) {
      const pair = [nameOf(name), valueOf(value)];
      this.#change();
      const at = this.#pairs.findIndex(([known]) => known === pair[0]);
      if (at < 0) this.#pairs.push(pair);
      else this.#pairs = this.#pairs.filter(([known], i) => i <= at || known !== pair[0]).with(at, pair);
    }
    // In the order of their names; values of one name together, but for cookies.
    #sorted() {
      const joined = new Map();
      const cookies = [];
      for (const [name, value] of this.#pairs) {
        if (name === 'set-cookie') cookies.push([name, value]);
        else if (joined.has(name)) joined.get(name).push(value);
        else joined.set(name, [value]);
      }
      const list = [...joined].map(([name, values]) => [name, values.join(', ')]);
      return [...list, ...cookies].sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
    }
    forEach(callback, self) {
      for (const [name, value] of this.#sorted()) callback.call(self, value, name, this);
    }
    *entries() {
      yield* this.#sorted();
    }
    *keys() {
      for (const [name] of this.#sorted()) yield name;
    }
    *values() {
      for (const [, value] of this.#sorted()) yield value;
    }
    [Symbol.iterator]() {
      return this.entries();
    }
    get [Symbol.toStringTag]() {
      return 'Headers';
    }
  }

  // ── bodies ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

  const viewOf = (value) => {
    if (value instanceof ArrayBuffer) return new Uint8Array(value);
    return ArrayBuffer.isView(value) ? new Uint8Array(value.buffer, value.byteOffset, value.byteLength) : null;
  };

  const isStream = (value) => Boolean(bridge.peek('streams')?.isStream(value));

  // What a body given by the author is: [text, bytes or stream; the content type a browser would add, or null].
  const extract = (given, limit = MAX_WHOLE) => {
    if (given === undefined || given === null) return [null, null];
    const bytes = viewOf(given);
    if (bytes !== null) return [bytes.slice(), null];
    if (typeof given === 'object') {
      if (isStream(given)) {
        if (!streams().usable(given)) throw new TypeError('the stream of the body is locked or was read already');
        return [given, null];
      }
      if (bridge.peek('forms')?.isBlob(given)) return [forms().bytesOf(given).slice(), forms().typeIn(given) || null];
      if (bridge.peek('forms')?.isForm(given)) return forms().pack(given, limit);
      const Params = bridge.peek('url')?.URLSearchParams;
      if (Params !== undefined && given instanceof Params) return [bridge.text(given), 'application/x-www-form-urlencoded;charset=UTF-8'];
    }
    return [bridge.text(given), 'text/plain;charset=UTF-8'];
  };

  const toBytes = (source) => (typeof source === 'string' ? encode(source) : source);
  const toText = (source) => (typeof source === 'string' ? source.replace(/^\uFEFF/, '') : new (bridge.need('encoding').TextDecoder)().decode(source));

  let takeOf; // (body, limit): text or bytes, once
  let handOver; // (body): its text, bytes or stream for another body or for the network; then this one is used
  let copyOf; // (body): another source of the same
  let contentOf; // (body): its source, null if it has none

  class Body {
    #source;
    #headers;
    #stream = null;
    #used = false;

    constructor(headers, source) {
      this.#headers = headers;
      this.#source = source;
      if (isStream(source)) this.#stream = source;
    }
    static {
      contentOf = (body) => body.#source;
      takeOf = async (body, limit = MAX_WHOLE) => {
        body.#claim();
        if (body.#stream !== null) return streams().collect(body.#stream, limit);
        return body.#source ?? '';
      };
      handOver = (body) => {
        if (body.#source === null) return null;
        body.#claim();
        return body.#stream ?? body.#source;
      };
      copyOf = (body) => {
        body.#fresh();
        if (body.#stream === null) return body.#source;
        const [mine, other] = body.#stream.tee();
        body.#stream = body.#source = mine;
        return other;
      };
    }
    #fresh() {
      if (this.bodyUsed || this.#stream?.locked) throw new TypeError('Body is unusable: Body has already been read');
    }
    #claim() {
      this.#fresh();
      if (this.#source !== null) this.#used = true;
    }
    get headers() {
      return this.#headers;
    }
    get body() {
      if (this.#source === null) return null;
      if (this.#stream === null) {
        this.#stream = streams().ofBytes(toBytes(this.#source));
        if (this.#used) this.#stream.getReader();
      }
      return this.#stream;
    }
    get bodyUsed() {
      return this.#used || (this.#stream !== null && streams().disturbed(this.#stream));
    }
    async text() {
      return toText(await takeOf(this));
    }
    async json() {
      return JSON.parse(toText(await takeOf(this)));
    }
    async bytes() {
      const source = await takeOf(this);
      return typeof source === 'string' ? encode(source) : source.slice();
    }
    async arrayBuffer() {
      return (await this.bytes()).buffer;
    }
    async blob() {
      return new (forms().Blob)([toBytes(await takeOf(this))], { type: this.#headers.get('content-type') ?? '' });
    }
    async formData() {
      return forms().parse(toBytes(await takeOf(this)), this.#headers.get('content-type') ?? '');
    }
  }

  const typed = (headers, type) => {
    if (type !== null && !headers.has('content-type')) headers.append('content-type', type);
    return headers;
  };

  // ── requests ───────────────────────────────────────────────────────────────────────────────────────────────────────────

  const KNOWN = /^(?:get|head|post|put|patch|delete|options)$/i;
  const FORBIDDEN = /^(?:connect|trace|track)$/i;

  const methodOf = (given) => {
    const method = bridge.text(given);
    if (!TOKEN.test(method) || FORBIDDEN.test(method)) throw new TypeError(`fetch: ${method.slice(0, 40)} is not a method`);
    return KNOWN.test(method) ? method.toUpperCase() : method;
  };

  const redirectOf = (given) => {
    const redirect = bridge.text(given);
    if (!['follow', 'error', 'manual'].includes(redirect)) throw new TypeError("fetch: redirect must be 'follow', 'error' or 'manual'");
    return redirect;
  };

  const signalOf = (given) => {
    if (given === undefined || given === null) return null;
    if (!bridge.peek('abort')?.isSignal(given)) throw new TypeError('fetch: signal must be an AbortSignal');
    return given;
  };

  // The parts of a request as `init` has them, and as `from` (a Request, or null) has them otherwise.
  const partsOf = (from, init, limit) => {
    if (typeof init !== 'object' && typeof init !== 'function' || init === null) throw new TypeError('fetch: the options must be an object');
    const { method: asked, headers: given, body, redirect, signal } = init;
    const method = asked === undefined ? (from?.method ?? 'GET') : methodOf(asked);
    const headers = given === undefined || given === null ? headersOf(from === null ? [] : [...pairsIn(from.headers)]) : new Headers(given);
    const own = body !== undefined && body !== null;
    if ((own || (from !== null && contentOf(from) !== null)) && (method === 'GET' || method === 'HEAD')) throw new TypeError(`fetch: a ${method} request has no body`);
    const to = redirect === undefined ? (from?.redirect ?? 'follow') : redirectOf(redirect);
    const until = signal === undefined ? (from === null ? null : heeded(from)) : signalOf(signal);
    const [source, type] = own ? extract(body, limit) : [from === null ? null : handOver(from), null];
    return { method, headers: typed(headers, type), source, redirect: to, signal: until };
  };

  const addressOf = (given) => {
    const { URL } = bridge.need('url');
    const url = new URL(bridge.text(given));
    if (url.username || url.password) throw new TypeError('Request: the URL holds a user name or password; send them in a header instead');
    return url.href;
  };

  let isRequest;
  let heeded; // (request): its signal, null if none was given

  class Request extends Body {
    #url;
    #parts;
    #signal;

    constructor(input, init = {}) {
      if (input === INSIDE) {
        super(init.headers, init.source);
        this.#url = init.url;
        this.#parts = init.parts;
        this.#signal = init.signal;
        return;
      }
      const from = isRequest(input) ? input : null;
      const url = from === null ? addressOf(input) : from.#url;
      const parts = partsOf(from, init ?? {});
      super(parts.headers, parts.source);
      this.#url = url;
      this.#parts = parts;
      this.#signal = parts.signal;
    }
    static {
      isRequest = (value) => typeof value === 'object' && value !== null && #parts in value;
      heeded = (request) => request.#signal;
    }
    get method() {
      return this.#parts.method;
    }
    get url() {
      return this.#url;
    }
    get redirect() {
      return this.#parts.redirect;
    }
    get signal() {
      return (this.#signal ??= bridge.need('abort').idle());
    }
    get cache() {
      return 'default';
    }
    get credentials() {
      return 'same-origin';
    }
    get mode() {
      return 'cors';
    }
    get duplex() {
      return 'half';
    }
    clone() {
      const source = copyOf(this);
      return new Request(INSIDE, { source, headers: headersOf([...pairsIn(this.headers)]), url: this.#url, parts: this.#parts, signal: this.#signal });
    }
    get [Symbol.toStringTag]() {
      return 'Request';
    }
  }

  // ── responses ──────────────────────────────────────────────────────────────────────────────────────────────────────────

  const WITHOUT_BODY = [101, 204, 205, 304];
  const REDIRECTS = [301, 302, 303, 307, 308];

  let isResponse;
  let partsIn;

  const answer = (source, headers, parts) => new Response(INSIDE, { source, headers, parts });

  class Response extends Body {
    #parts;

    constructor(body = null, init = {}) {
      if (body === INSIDE) {
        super(init.headers, init.source);
        this.#parts = init.parts;
        return;
      }
      const { status: asked, statusText = '', headers: given } = init ?? {};
      const status = asked === undefined ? 200 : Math.trunc(Number(asked));
      if (!(status >= 200 && status <= 599)) throw new RangeError('Response: status must be between 200 and 599');
      if (!/^[\t\x20-\x7e\x80-\xff]*$/.test(bridge.text(statusText))) throw new TypeError('Response: statusText is not one line of Latin letters');
      if (body !== null && WITHOUT_BODY.includes(status)) throw new TypeError(`Response: an answer of status ${status} has no body`);
      const headers = new Headers(given ?? undefined);
      const [source, type] = extract(body);
      super(typed(headers, type), source);
      this.#parts = { status, statusText: bridge.text(statusText), url: '', redirected: false, type: 'default' };
    }
    static {
      isResponse = (value) => typeof value === 'object' && value !== null && #parts in value;
      partsIn = (response) => response.#parts;
    }
    static json(data, init = {}) {
      const text = JSON.stringify(data);
      if (text === undefined) throw new TypeError(`Response.json: a ${typeof data} is not JSON`);
      const headers = typed(new Headers(init?.headers ?? undefined), 'application/json');
      return new Response(text, { ...init, headers });
    }
    static error() {
      return answer(null, seal(new Headers()), { status: 0, statusText: '', url: '', redirected: false, type: 'error' });
    }
    static redirect(url, status = 302) {
      const location = new (bridge.need('url').URL)(bridge.text(url)).href;
      if (!REDIRECTS.includes(Number(status))) throw new RangeError(`Response.redirect: status must be one of ${REDIRECTS.join(', ')}`);
      const response = new Response(null, { status, headers: { location } });
      seal(response.headers);
      return response;
    }
    get status() {
      return this.#parts.status;
    }
    get ok() {
      return this.status >= 200 && this.status < 300;
    }
    get statusText() {
      return this.#parts.statusText;
    }
    get url() {
      return this.#parts.url;
    }
    get redirected() {
      return this.#parts.redirected;
    }
    get type() {
      return this.#parts.type;
    }
    clone() {
      const source = copyOf(this);
      return answer(source, headersOf([...pairsIn(this.headers)]), this.#parts);
    }
    get [Symbol.toStringTag]() {
      return 'Response';
    }
  }

  // What a function that returns a Response has for a result: {status, headers, body}, or `body_base64` if it is not UTF-8.
  const plain = async (response, limit) => {
    const { status, type } = partsIn(response);
    if (type === 'error') throw new TypeError('the function returned Response.error(), which is no answer');
    const headers = { __proto__: null };
    for (const [name, value] of pairsIn(response.headers)) headers[name] = name in headers ? `${headers[name]}, ${value}` : value;
    const source = await takeOf(response, limit);
    if (typeof source === 'string') return { status, headers, body: source };
    try {
      return { status, headers, body: new (bridge.need('encoding').TextDecoder)('utf-8', { fatal: true, ignoreBOM: true }).decode(source) };
    } catch {
      return { status, headers, body_base64: source.toBase64() };
    }
  };

  return { Headers, Request, Response, isRequest, isResponse, headersOf, pairsIn, seal, partsOf, handOver, isStream, answer, plain };
};
//# sourceURL=rootlink:http
