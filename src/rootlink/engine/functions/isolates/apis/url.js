// URL and URLSearchParams: https://url.spec.whatwg.org. A convenience for bodies: where a request may go is decided by the host,
// from the text it is given.
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

  // The domain in ASCII, or null. One that is ASCII already is not looked into, as the standard says.
  const toAscii = (domain) => (/^[\0-\x7f]*$/.test(domain) ? domain.toLowerCase() : bridge.need('idna').toAscii(domain));

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
    if (!domain || FORBIDDEN_DOMAIN.test(domain)) return null;
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
  const DRIVE = /^[a-z][:|]$/i; // a Windows drive letter
  const STARTS_WITH_DRIVE = /^[a-z][:|](?:[/\\]|$)/i;

  // Takes the last segment away; a file's drive stays.
  const shorten = (segments, scheme) => {
    if (scheme !== 'file:' || segments.length !== 1 || !/^[a-z]:$/i.test(segments[0])) segments.pop();
  };

  // The path that `text`, which has no slash in front, leads to from the segments of `start`.
  const walk = (text, scheme, start = []) => {
    const segments = [...start];
    const parts = text.split('/');
    parts.forEach((part, i) => {
      const last = i === parts.length - 1;
      if (isDoubleDot(part)) {
        shorten(segments, scheme);
        if (last) segments.push('');
      } else if (isDot(part)) {
        if (last) segments.push('');
      } else if (scheme === 'file:' && segments.length === 0 && DRIVE.test(part)) segments.push(part[0] + ':');
      else segments.push(encode(part, 'path'));
    });
    return '/' + segments.join('/');
  };

  const setPath = (url, text) => {
    const path = slashes(text, isSpecial(url.scheme));
    url.path = path === '' && !isSpecial(url.scheme) ? '' : walk(path.replace(/^\//, ''), url.scheme);
  };

  const setAuthorityAndPath = (url, text) => {
    const end = text.search(isSpecial(url.scheme) ? /[/\\]/ : /\//);
    const [authority, path] = end < 0 ? [text, ''] : [text.slice(0, end), text.slice(end)];
    if (!setAuthority(url, authority)) return false;
    setPath(url, path);
    return true;
  };

  const setFileHost = (url, text) => {
    const host = text === '' ? '' : parseHost(text, true);
    if (host !== null) url.host = host === 'localhost' ? '' : host;
    return host !== null;
  };

  const setFile = (url, text, base) => {
    const rest = slashes(text, true);
    const from = base?.scheme === 'file:' ? base : null;
    url.host = '';
    if (rest.startsWith('//')) {
      const [, name, path] = /^([^/]*)(.*)$/s.exec(rest.slice(2));
      if (!DRIVE.test(name)) {
        if (!setFileHost(url, name)) return false;
        setPath(url, path);
      } else url.path = walk(rest.slice(2), 'file:');
      return true;
    }
    if (from === null) {
      setPath(url, rest);
      return true;
    }
    url.host = from.host;
    const start = segmentsOf(from.path);
    if (rest.startsWith('/')) url.path = walk(rest.slice(1), 'file:', STARTS_WITH_DRIVE.test(rest.slice(1)) || !/^[a-z]:$/i.test(start[0]) ? [] : [start[0]]);
    else if (STARTS_WITH_DRIVE.test(rest)) url.path = walk(rest, 'file:');
    else relative(url, rest, from);
    return true;
  };

  const segmentsOf = (path) => path.split('/').slice(1);

  // The path of `text` against that of `base`; its query too when `text` names none.
  const relative = (url, text, base) => {
    const path = slashes(text, isSpecial(url.scheme));
    if (path.startsWith('/')) setPath(url, path);
    else if (path === '') {
      url.path = base.path;
      url.query ??= base.query;
    } else {
      const start = segmentsOf(base.path);
      shorten(start, url.scheme);
      url.path = walk(path, url.scheme, start);
    }
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
      if (url.query !== null || url.fragment !== null) url.path = url.path.replace(/ $/, '%20');
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

  // Where the text begins and ends without C0 controls and spaces around. A regexp would take quadratic time.
  const edges = (text) => {
    let [start, end] = [0, text.length];
    while (start < end && text.charCodeAt(start) <= 32) start++;
    while (end > start && text.charCodeAt(end - 1) <= 32) end--;
    return [start, end];
  };

  // The record of `input`, or null.
  const parse = (input, base) => {
    const trimmed = input.slice(...edges(input)).replace(/[\t\n\r]/g, '');
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
  const atLeast = (given, wanted) => {
    if (given.length < wanted) throw new TypeError(`${wanted} arguments are needed, not ${given.length}`);
  };

  const pairsOf = (init) => {
    if (Object(init) !== init) return parseForm(string(init).replace(/^\?/, ''));
    const iterate = init[Symbol.iterator];
    if (iterate === undefined || iterate === null) {
      const names = Reflect.ownKeys(init).filter((name) => Object.getOwnPropertyDescriptor(init, name)?.enumerable);
      return [...new Map(names.map((name) => [string(name), string(init[name])]))];
    }
    if (typeof iterate !== 'function') throw new TypeError('URLSearchParams: the pairs cannot be iterated over');
    return [...init].map((each) => {
      if (Object(each) !== each || typeof each[Symbol.iterator] !== 'function') throw new TypeError('URLSearchParams: a pair is a list');
      const pair = [...each].map(string);
      if (pair.length !== 2) throw new TypeError('URLSearchParams: each pair must have a name and a value');
      return pair;
    });
  };

  // Lives: what is appended while it runs is gone through too.
  function* through(list, show) {
    for (let i = 0; i < list.length; i++) yield show(list[i]);
  }

  let attach; // (params, text, onChange): params that belong to a URL

  class URLSearchParams {
    #list = [];
    #changed = () => {};

    static {
      attach = (params, text, onChange) => {
        params.#replace(parseForm(text));
        params.#changed = onChange;
      };
    }
    constructor(init = '') {
      this.#list = pairsOf(init);
    }
    // In place, and not by `push(...pairs)`: there may be more than a stack holds.
    #replace(pairs) {
      for (let i = 0; i < pairs.length; i++) this.#list[i] = pairs[i];
      this.#list.length = pairs.length;
    }
    get size() {
      return this.#list.length;
    }
    append(name, value) {
      atLeast(arguments, 2);
      this.#list.push([string(name), string(value)]);
      this.#changed();
    }
    delete(name, value) {
      atLeast(arguments, 1);
      const [key, wanted] = [string(name), value === undefined ? undefined : string(value)];
      this.#replace(this.#list.filter((pair) => pair[0] !== key || (wanted !== undefined && pair[1] !== wanted)));
      this.#changed();
    }
    get(name) {
      atLeast(arguments, 1);
      const key = string(name);
      return this.#list.find((pair) => pair[0] === key)?.[1] ?? null;
    }
    getAll(name) {
      atLeast(arguments, 1);
      const key = string(name);
      return this.#list.filter((pair) => pair[0] === key).map((pair) => pair[1]);
    }
    has(name, value) {
      atLeast(arguments, 1);
      const [key, wanted] = [string(name), value === undefined ? undefined : string(value)];
      return this.#list.some((pair) => pair[0] === key && (wanted === undefined || pair[1] === wanted));
    }
    set(name, value) {
      atLeast(arguments, 2);
      const [key, next] = [string(name), string(value)];
      const at = this.#list.findIndex((pair) => pair[0] === key);
      if (at < 0) this.#list.push([key, next]);
      else this.#replace(this.#list.map((pair, i) => (i === at ? [key, next] : pair)).filter((pair, i) => i <= at || pair[0] !== key));
      this.#changed();
    }
    sort() {
      this.#list.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
      this.#changed();
    }
    forEach(callback, self) {
      if (typeof callback !== 'function') throw new TypeError('forEach needs a function');
      for (const [name, value] of this.entries()) callback.call(self, value, name, this);
    }
    entries() {
      return through(this.#list, ([name, value]) => [name, value]);
    }
    keys() {
      return through(this.#list, ([name]) => name);
    }
    values() {
      return through(this.#list, ([, value]) => value);
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

  const cleaned = (value) => string(value).replace(/[\t\n\r]/g, '');

  class URL {
    #url;
    #params = null;

    constructor(input, base) {
      atLeast(arguments, 1);
      this.#url = read(input, base);
      if (this.#url === null) throw bridge.fault('TypeError', 'Invalid URL');
    }
    static canParse(input, base) {
      atLeast(arguments, 1);
      return read(input, base) !== null;
    }
    static parse(input, base) {
      atLeast(arguments, 1);
      return read(input, base) === null ? null : new URL(input, base);
    }

    #fixed() {
      return !this.#url.host || this.#url.scheme === 'file:';
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
      const { scheme, path } = this.#url;
      if (scheme === 'blob:') {
        const inner = parse(path, null);
        return inner !== null && /^https?:$/.test(inner.scheme) ? `${inner.scheme}//${hostOf(inner)}` : 'null';
      }
      return isSpecial(scheme) && scheme !== 'file:' ? `${scheme}//${hostOf(this.#url)}` : 'null';
    }
    get protocol() {
      return this.#url.scheme;
    }
    set protocol(value) {
      const scheme = /^([a-zA-Z][a-zA-Z0-9+.-]*)(?::.*)?$/s.exec(cleaned(value))?.[1].toLowerCase() + ':';
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
      const [, name, port] = (isSpecial(this.#url.scheme) ? /^(\[[^\]/?#\\]*\]?|[^:/?#\\]*)(?::([0-9]*))?/ : /^(\[[^\]/?#]*\]?|[^:/?#]*)(?::([0-9]*))?/).exec(cleaned(value));
      if (name === '' && port !== undefined) return;
      if (this.#url.scheme === 'file:') this.hostname = value;
      else if (this.#rename(name) && port) setPort(this.#url, port);
    }
    get hostname() {
      return this.#url.host ?? '';
    }
    set hostname(value) {
      const [name] = (isSpecial(this.#url.scheme) ? /^[^/?#\\]*/ : /^[^/?#]*/).exec(cleaned(value));
      if (this.#url.scheme === 'file:') setFileHost(this.#url, name);
      else if (name[0] === '[' || !name.includes(':')) this.#rename(name);
    }
    #rename(name) {
      const { scheme, opaque, username, password, port } = this.#url;
      if (opaque || (name === '' && (isSpecial(scheme) || username || password || port))) return false;
      const host = name === '' ? '' : parseHost(name, isSpecial(scheme));
      if (host !== null) this.#url.host = host;
      return host !== null;
    }
    get port() {
      return this.#url.port;
    }
    set port(value) {
      const digits = /^[0-9]*/.exec(cleaned(value))[0];
      if (!this.#fixed() && (digits !== '' || string(value) === '')) setPort(this.#url, digits);
    }
    get pathname() {
      return this.#url.path;
    }
    set pathname(value) {
      if (this.#url.opaque) return;
      setPath(this.#url, cleaned(value));
      if (this.#url.path === '' && this.#url.host === null) this.#url.path = '/';
    }
    get search() {
      return this.#url.query ? '?' + this.#url.query : '';
    }
    set search(value) {
      const query = cleaned(value);
      this.#url.query = string(value) === '' ? null : encode(query.replace(/^\?/, ''), isSpecial(this.#url.scheme) ? 'special' : 'query');
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
      const fragment = cleaned(value);
      this.#url.fragment = string(value) === '' ? null : encode(fragment.replace(/^#/, ''), 'fragment');
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

  bridge.harden(through); // no property leads to it, and its iterators have it for their prototype
  return { URL, URLSearchParams };
};
//# sourceURL=rootlink:url
