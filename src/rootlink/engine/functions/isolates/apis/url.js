// URL and URLSearchParams: https://url.spec.whatwg.org. A convenience for bodies: where a request may go is decided by the host,
// from the text it is given. Left out: Windows drive letters, and of UTS #46 everything beyond NFKC, lower case and Punycode.
(bridge) => {
  'use strict';
  const PORTS = { __proto__: null, 'http:': '80', 'https:': '443', 'ws:': '80', 'wss:': '443', 'ftp:': '21', 'file:': '' };
  const isSpecial = (scheme) => scheme in PORTS;

  // ── percent encoding ───────────────────────────────────────────────────────────────────────────────────────────────────

  const QUERY = ' "#<>';
  const SETS = { fragment: ' "<>`', query: QUERY, special: QUERY + "'", path: QUERY + '?^`{}', userinfo: QUERY + '?^`{}/:;=@[\\]|', opaque: '' };

  const hex = (byte) => '%' + (byte < 16 ? '0' : '') + byte.toString(16).toUpperCase();

  const encode = (text, set) => {
    const refused = SETS[set];
    let out = '';
    for (const c of text.toWellFormed()) {
      if (c > '~') out += encodeURIComponent(c);
      else if (c < ' ' || refused.includes(c)) out += hex(c.charCodeAt(0));
      else out += c;
    }
    return out.replaceAll('\x7f', '%7F');
  };

  const decodeBytes = (text) => {
    const { TextEncoder, TextDecoder } = bridge.need('encoding');
    const bytes = new TextEncoder().encode(text);
    const out = new Uint8Array(bytes.length);
    let length = 0;
    for (let i = 0; i < bytes.length; i++) {
      const pair = bytes[i] === 37 ? String.fromCharCode(bytes[i + 1] ?? 0, bytes[i + 2] ?? 0) : '';
      if (/^[0-9a-fA-F]{2}$/.test(pair)) {
        out[length++] = parseInt(pair, 16);
        i += 2;
      } else out[length++] = bytes[i];
    }
    return new TextDecoder('utf-8', { ignoreBOM: true }).decode(out.subarray(0, length));
  };

  // ── hosts ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

  const FORBIDDEN_HOST = /[\0\t\n\r #/:<>?@[\\\]^|]/;
  const FORBIDDEN_DOMAIN = /[\0-\x20#%/:<>?@[\\\]^|\x7f]/;
  const IGNORED = /[\u00ad\u034f\u180b-\u180d\u200b\u2060\u2064\ufe00-\ufe0f\ufeff]/g;

  const adapt = (delta, points, first) => {
    let d = first ? Math.floor(delta / 700) : delta >> 1;
    d += Math.floor(d / points);
    let k = 0;
    for (; d > 455; k += 36) d = Math.floor(d / 35);
    return k + Math.floor((36 * d) / (d + 38));
  };

  const digit = (value) => String.fromCharCode(value < 26 ? value + 97 : value + 22);

  // RFC 3492, the encoding half.
  const punycode = (label) => {
    const points = [...label].map((c) => c.codePointAt(0));
    let out = points.filter((point) => point < 128).map((point) => String.fromCharCode(point)).join('');
    const basic = out.length;
    if (basic) out += '-';
    let [n, delta, bias, handled] = [128, 0, 72, basic];
    while (handled < points.length) {
      const next = points.reduce((least, point) => (point >= n && point < least ? point : least), Infinity);
      delta += (next - n) * (handled + 1);
      n = next;
      for (const point of points) {
        if (point < n) delta++;
        if (point !== n) continue;
        let q = delta;
        for (let k = 36; ; k += 36) {
          const t = k <= bias ? 1 : k >= bias + 26 ? 26 : k - bias;
          if (q < t) break;
          out += digit(t + ((q - t) % (36 - t)));
          q = Math.floor((q - t) / (36 - t));
        }
        out += digit(q);
        bias = adapt(delta, handled + 1, handled === basic);
        delta = 0;
        handled++;
      }
      delta++;
      n++;
    }
    return out;
  };

  const toAscii = (domain) => {
    const mapped = domain.replace(IGNORED, '').normalize('NFKC').toLowerCase().normalize('NFKC').replace(/[\u3002\uff0e\uff61]/g, '.');
    return mapped.split('.').map((label) => (/^[\0-\x7f]*$/.test(label) ? label : 'xn--' + punycode(label))).join('.');
  };

  const number = (text) => {
    if (text === '') return null;
    const [digits, radix] = /^0x/i.test(text) ? [text.slice(2), 16] : text.length > 1 && text[0] === '0' ? [text.slice(1), 8] : [text, 10];
    if (digits === '') return 0;
    const allowed = { 16: /^[0-9a-f]+$/i, 10: /^[0-9]+$/, 8: /^[0-7]+$/ }[radix];
    return allowed.test(digits) ? parseInt(digits, radix) : null;
  };

  // The dotted form of an IPv4 address, undefined if the domain is not one, null if it ends like one and is wrong.
  const ipv4 = (domain) => {
    const parts = domain.split('.');
    if (parts.at(-1) === '' && parts.length > 1) parts.pop();
    const last = parts.at(-1);
    if (!/^[0-9]+$/.test(last) && !(/^0x[0-9a-f]*$/i.test(last))) return undefined;
    const numbers = parts.map(number);
    if (parts.length > 4 || numbers.includes(null)) return null;
    const end = numbers.pop();
    if (numbers.some((part) => part > 255) || end >= 256 ** (4 - numbers.length)) return null;
    const value = numbers.reduce((sum, part, i) => sum + part * 256 ** (3 - i), end);
    return [24, 16, 8, 0].map((shift) => Math.floor(value / 2 ** shift) % 256).join('.');
  };

  const ipv6 = (text) => {
    const halves = text.split('::');
    if (halves.length > 2) return null;
    const pieces = (half, isLast) => {
      if (half === '') return [];
      const parts = half.split(':');
      const dotted = isLast && parts.at(-1).includes('.') ? parts.pop() : null;
      if (!parts.every((part) => /^[0-9a-f]{1,4}$/i.test(part))) return null;
      const out = parts.map((part) => parseInt(part, 16));
      if (dotted === null) return out;
      if (!/^(?:(?:0|[1-9][0-9]{0,2})\.){3}(?:0|[1-9][0-9]{0,2})$/.test(dotted)) return null;
      const bytes = dotted.split('.').map(Number);
      if (bytes.some((byte) => byte > 255)) return null;
      return [...out, bytes[0] * 256 + bytes[1], bytes[2] * 256 + bytes[3]];
    };
    const head = pieces(halves[0], halves.length === 1);
    const tail = halves.length === 2 ? pieces(halves[1], true) : [];
    if (head === null || tail === null) return null;
    const missing = 8 - head.length - tail.length;
    if (halves.length === 2 ? missing < 1 : missing !== 0) return null;
    return compress([...head, ...new Array(missing).fill(0), ...tail]);
  };

  const compress = (pieces) => {
    let best = [-1, 1];
    for (let i = 0; i < 8; i++) {
      let end = i;
      while (end < 8 && pieces[end] === 0) end++;
      if (end - i > best[1]) best = [i, end - i];
      i = Math.max(i, end - 1);
    }
    const text = (from, to) => pieces.slice(from, to).map((piece) => piece.toString(16)).join(':');
    return best[0] < 0 ? `[${text(0, 8)}]` : `[${text(0, best[0])}::${text(best[0] + best[1], 8)}]`;
  };

  const parseHost = (text, special) => {
    if (text[0] === '[') return text.at(-1) === ']' ? ipv6(text.slice(1, -1)) : null;
    if (!special) return FORBIDDEN_HOST.test(text) ? null : encode(text, 'opaque');
    const domain = toAscii(decodeBytes(text));
    if (domain === '' || FORBIDDEN_DOMAIN.test(domain)) return null;
    const address = ipv4(domain);
    return address === undefined ? domain : address;
  };

  // ── parsing ────────────────────────────────────────────────────────────────────────────────────────────────────────────

  const cut = (text, mark) => {
    const at = text.indexOf(mark);
    return at < 0 ? [text, null] : [text.slice(0, at), text.slice(at + 1)];
  };

  const slashes = (text, special) => (special ? text.replaceAll('\\', '/') : text);

  const setPort = (url, text) => {
    if (!/^[0-9]*$/.test(text) || Number(text) > 65535) return false;
    url.port = text === '' || String(Number(text)) === PORTS[url.scheme] ? '' : String(Number(text));
    return true;
  };

  const setAuthority = (url, text) => {
    const special = isSpecial(url.scheme);
    const at = text.lastIndexOf('@');
    if (at >= 0) {
      const [user, password] = cut(text.slice(0, at), ':');
      url.username = encode(user, 'userinfo');
      url.password = encode(password ?? '', 'userinfo');
    }
    const place = text.slice(at + 1);
    const [, name, port] = /^(\[[^\]]*\]|[^:]*)(?::(.*))?$/s.exec(place) ?? [];
    if (name === undefined) return false;
    if (name === '') {
      if (special || at >= 0 || port !== undefined) return false;
      url.host = '';
      return true;
    }
    url.host = parseHost(name, special);
    return url.host !== null && setPort(url, port ?? '');
  };

  const isDot = (segment) => /^(?:\.|%2e)$/i.test(segment);
  const isDoubleDot = (segment) => /^(?:\.|%2e){2}$/i.test(segment);

  // `path` begins with a slash or is empty; `start` are the segments it is relative to.
  const walk = (path, start = []) => {
    const segments = [...start];
    const parts = path.split('/');
    parts.forEach((part, i) => {
      const last = i === parts.length - 1;
      if (isDoubleDot(part)) {
        segments.pop();
        if (last) segments.push('');
      } else if (isDot(part)) {
        if (last) segments.push('');
      } else segments.push(encode(part, 'path'));
    });
    return '/' + segments.join('/');
  };

  const setPath = (url, text) => {
    const path = slashes(text, isSpecial(url.scheme));
    url.path = path === '' ? (isSpecial(url.scheme) ? '/' : '') : walk(path.replace(/^\//, ''));
  };

  const setAuthorityAndPath = (url, text) => {
    const end = text.search(isSpecial(url.scheme) ? /[/\\]/ : /\//);
    const [authority, path] = end < 0 ? [text, ''] : [text.slice(0, end), text.slice(end)];
    if (!setAuthority(url, authority)) return false;
    setPath(url, path);
    return true;
  };

  const setFile = (url, text, base) => {
    const rest = slashes(text, true);
    if (rest.startsWith('//')) {
      const end = rest.indexOf('/', 2);
      const [name, path] = end < 0 ? [rest.slice(2), ''] : [rest.slice(2, end), rest.slice(end)];
      url.host = name === '' ? '' : parseHost(name, true);
      if (url.host === null) return false;
      if (url.host === 'localhost') url.host = '';
      setPath(url, path);
      return true;
    }
    url.host = base?.scheme === 'file:' ? base.host : '';
    if (rest.startsWith('/') || base?.scheme !== 'file:') setPath(url, rest);
    else relative(url, rest, base);
    return true;
  };

  // The path of `text` against that of `base`; its query too when `text` names none.
  const relative = (url, text, base) => {
    const path = slashes(text, isSpecial(url.scheme));
    if (path.startsWith('/')) setPath(url, path);
    else if (path === '') {
      url.path = base.path;
      url.query ??= base.query;
    } else url.path = walk(path, base.path.split('/').slice(1, -1));
  };

  const inherit = (url, text, base) => {
    if (slashes(text, isSpecial(url.scheme)).startsWith('//')) return setAuthorityAndPath(url, text.slice(2).replace(isSpecial(url.scheme) ? /^[/\\]+/ : /^$/, ''));
    for (const part of ['username', 'password', 'host', 'port']) url[part] = base[part];
    relative(url, text, base);
    return true;
  };

  const setRest = (url, text, base) => {
    const special = isSpecial(url.scheme);
    if (url.scheme === 'file:') return setFile(url, text, base);
    if (special && base?.scheme === url.scheme && !text.startsWith('//')) return inherit(url, text, base);
    if (special) return setAuthorityAndPath(url, text.replace(/^[/\\]+/, ''));
    if (text.startsWith('//')) return setAuthorityAndPath(url, text.slice(2));
    if (text.startsWith('/')) setPath(url, text);
    else {
      url.opaque = true;
      url.path = encode(text, 'opaque');
    }
    return true;
  };

  const withoutScheme = (url, text, base) => {
    if (base === null) return false;
    url.scheme = base.scheme;
    if (base.opaque) {
      if (text !== '' || url.query !== null || url.fragment === null) return false;
      Object.assign(url, { opaque: true, path: base.path, query: base.query });
      return true;
    }
    return base.scheme === 'file:' ? setFile(url, text, base) : inherit(url, text, base);
  };

  const blank = () => ({ scheme: '', username: '', password: '', host: null, port: '', path: '', opaque: false, query: null, fragment: null });

  // The record of `input`, or null.
  const parse = (input, base) => {
    const trimmed = input.replace(/^[\0- ]+|[\0- ]+$/g, '').replace(/[\t\n\r]/g, '');
    const [beforeFragment, fragment] = cut(trimmed, '#');
    const [, scheme, rest] = /^([a-zA-Z][a-zA-Z0-9+.-]*:)(.*)$/s.exec(beforeFragment) ?? [null, null, beforeFragment];
    const [text, query] = cut(rest, '?');
    const url = blank();
    url.scheme = scheme?.toLowerCase() ?? base?.scheme ?? '';
    url.fragment = fragment === null ? null : encode(fragment, 'fragment');
    url.query = query === null ? null : encode(query, isSpecial(url.scheme) ? 'special' : 'query');
    const fits = scheme === null ? withoutScheme(url, text, base) : setRest(url, text, base);
    return fits ? url : null;
  };

  const hostOf = (url) => (url.host === null ? '' : url.host + (url.port && ':' + url.port));

  const serialize = (url) => {
    const credentials = url.username || url.password ? url.username + (url.password && ':' + url.password) + '@' : '';
    const authority = url.host === null ? (!url.opaque && url.path.startsWith('//') ? '/.' : '') : '//' + credentials + hostOf(url);
    return url.scheme + authority + url.path + (url.query === null ? '' : '?' + url.query) + (url.fragment === null ? '' : '#' + url.fragment);
  };

  // ── URLSearchParams ────────────────────────────────────────────────────────────────────────────────────────────────────

  const formEncode = (text) => encodeURIComponent(text.toWellFormed()).replace(/%20/g, '+').replace(/[!'()~]/g, (c) => hex(c.charCodeAt(0)));
  const formDecode = (text) => (/[%+\x80-\uffff]/.test(text) ? decodeBytes(text.replaceAll('+', ' ')) : text);
  const parseForm = (text) => text.split('&').filter(Boolean).map((pair) => cut(pair, '=').map((part) => formDecode(part ?? '')));
  const string = (value) => bridge.text(value);

  let attach; // (params, text, onChange): params that belong to a URL

  class URLSearchParams {
    #list = [];
    #changed = () => {};

    static {
      attach = (params, text, onChange) => {
        params.#list = parseForm(text);
        params.#changed = onChange;
      };
    }
    constructor(init = '') {
      if (typeof init === 'object' && init !== null) {
        const pairs = typeof init[Symbol.iterator] === 'function' ? [...init].map((pair) => [...pair]) : Object.entries(init);
        if (pairs.some((pair) => pair.length !== 2)) throw new TypeError('URLSearchParams: each pair must have a name and a value');
        this.#list = pairs.map(([name, value]) => [string(name), string(value)]);
      } else this.#list = parseForm(string(init).replace(/^\?/, ''));
    }
    get size() {
      return this.#list.length;
    }
    append(name, value) {
      this.#list.push([string(name), string(value)]);
      this.#changed();
    }
    delete(name, value) {
      this.#list = this.#list.filter((pair) => pair[0] !== string(name) || (value !== undefined && pair[1] !== string(value)));
      this.#changed();
    }
    get(name) {
      return this.#list.find((pair) => pair[0] === string(name))?.[1] ?? null;
    }
    getAll(name) {
      return this.#list.filter((pair) => pair[0] === string(name)).map((pair) => pair[1]);
    }
    has(name, value) {
      return this.#list.some((pair) => pair[0] === string(name) && (value === undefined || pair[1] === string(value)));
    }
    set(name, value) {
      const at = this.#list.findIndex((pair) => pair[0] === string(name));
      if (at < 0) this.#list.push([string(name), string(value)]);
      else {
        this.#list[at][1] = string(value);
        this.#list = this.#list.filter((pair, i) => i <= at || pair[0] !== string(name));
      }
      this.#changed();
    }
    sort() {
      this.#list.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
      this.#changed();
    }
    forEach(callback, self) {
      for (const [name, value] of this.#list) callback.call(self, value, name, this);
    }
    *entries() {
      for (const [name, value] of this.#list) yield [name, value];
    }
    *keys() {
      for (const [name] of this.#list) yield name;
    }
    *values() {
      for (const [, value] of this.#list) yield value;
    }
    [Symbol.iterator]() {
      return this.entries();
    }
    toString() {
      return this.#list.map((pair) => pair.map(formEncode).join('=')).join('&');
    }
    get [Symbol.toStringTag]() {
      return 'URLSearchParams';
    }
  }

  // ── URL ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

  const read = (input, base) => {
    const against = base === undefined ? null : parse(string(base), null);
    return base !== undefined && against === null ? null : parse(string(input), against);
  };

  class URL {
    #url;
    #params = null;

    constructor(input, base) {
      this.#url = read(input, base);
      if (this.#url === null) throw bridge.fault('TypeError', 'Invalid URL');
    }
    static canParse(input, base) {
      return read(input, base) !== null;
    }
    static parse(input, base) {
      return read(input, base) === null ? null : new URL(input, base);
    }

    #fixed() {
      return this.#url.host === null || this.#url.host === '' || this.#url.scheme === 'file:';
    }
    #attach() {
      attach(this.#params, this.#url.query ?? '', () => {
        this.#url.query = this.#params.toString() || null;
      });
    }

    get href() {
      return serialize(this.#url);
    }
    set href(value) {
      const url = parse(string(value), null);
      if (url === null) throw bridge.fault('TypeError', 'Invalid URL');
      this.#url = url;
      if (this.#params) this.#attach();
    }
    get origin() {
      const { scheme } = this.#url;
      return isSpecial(scheme) && scheme !== 'file:' ? `${scheme}//${hostOf(this.#url)}` : 'null';
    }
    get protocol() {
      return this.#url.scheme;
    }
    set protocol(value) {
      const scheme = /^([a-zA-Z][a-zA-Z0-9+.-]*)(?::.*)?$/s.exec(string(value))?.[1].toLowerCase() + ':';
      if (scheme === 'undefined:' || isSpecial(scheme) !== isSpecial(this.#url.scheme)) return;
      if (scheme === 'file:' && (this.#url.username || this.#url.password || this.#url.port)) return;
      if (this.#url.scheme === 'file:' && this.#url.host === '') return;
      this.#url.scheme = scheme;
      setPort(this.#url, this.#url.port);
    }
    get username() {
      return this.#url.username;
    }
    set username(value) {
      if (!this.#fixed()) this.#url.username = encode(string(value), 'userinfo');
    }
    get password() {
      return this.#url.password;
    }
    set password(value) {
      if (!this.#fixed()) this.#url.password = encode(string(value), 'userinfo');
    }
    get host() {
      return hostOf(this.#url);
    }
    set host(value) {
      const [, name, port] = /^(\[[^\]]*\]|[^:/?#\\]*)(?::([0-9]*))?/.exec(string(value));
      if (this.#rename(name) && port) setPort(this.#url, port);
    }
    get hostname() {
      return this.#url.host ?? '';
    }
    set hostname(value) {
      const [name] = /^(\[[^\]]*\]|[^/?#\\]*)/.exec(string(value));
      if (name[0] === '[' || !name.includes(':')) this.#rename(name);
    }
    #rename(name) {
      const host = this.#url.opaque || name === '' ? null : parseHost(name, isSpecial(this.#url.scheme));
      if (host !== null) this.#url.host = host;
      return host !== null;
    }
    get port() {
      return this.#url.port;
    }
    set port(value) {
      const digits = /^[0-9]*/.exec(string(value))[0];
      if (!this.#fixed() && (digits !== '' || string(value) === '')) setPort(this.#url, digits);
    }
    get pathname() {
      return this.#url.path;
    }
    set pathname(value) {
      if (!this.#url.opaque) setPath(this.#url, string(value).replace(/[\t\n\r]/g, '').replace(/[?#]/g, (c) => hex(c.charCodeAt(0))));
    }
    get search() {
      return this.#url.query ? '?' + this.#url.query : '';
    }
    set search(value) {
      const query = string(value).replace(/[\t\n\r]/g, '');
      this.#url.query = query === '' ? null : encode(query.replace(/^\?/, ''), isSpecial(this.#url.scheme) ? 'special' : 'query');
      if (this.#params) this.#attach();
    }
    get searchParams() {
      if (this.#params === null) {
        this.#params = new URLSearchParams();
        this.#attach();
      }
      return this.#params;
    }
    get hash() {
      return this.#url.fragment ? '#' + this.#url.fragment : '';
    }
    set hash(value) {
      const fragment = string(value).replace(/[\t\n\r]/g, '');
      this.#url.fragment = fragment === '' ? null : encode(fragment.replace(/^#/, ''), 'fragment');
    }
    toString() {
      return this.href;
    }
    toJSON() {
      return this.href;
    }
    get [Symbol.toStringTag]() {
      return 'URL';
    }
  }

  return { URL, URLSearchParams };
};
//# sourceURL=rootlink:url
