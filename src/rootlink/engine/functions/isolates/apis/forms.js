// Blob, File and FormData: https://w3c.github.io/FileAPI, https://xhr.spec.whatwg.org/#interface-formdata; and multipart (RFC 7578).
(bridge) => {
  'use strict';
  const encode = (text) => new (bridge.need('encoding').TextEncoder)().encode(text);
  const decode = (bytes) => new (bridge.need('encoding').TextDecoder)().decode(bytes);
  const CHUNK = 8192;

  const join = (parts) => {
    const bytes = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
    let at = 0;
    for (const part of parts) {
      bytes.set(part, at);
      at += part.length;
    }
    return bytes;
  };

  const typeOf = (given) => {
    const type = bridge.text(given ?? '');
    return /^[\x20-\x7e]*$/.test(type) ? type.toLowerCase() : '';
  };

  let bytesOf; // (blob): what it holds, not to be written to
  let typeIn;
  let isBlob;

  class Blob {
    #bytes;
    #type;

    constructor(parts = [], options = {}) {
      if (typeof parts !== 'object' || parts === null || typeof parts[Symbol.iterator] !== 'function') throw new TypeError('a Blob is made of a list of parts');
      this.#bytes = join([...parts].map(partOf));
      this.#type = typeOf(options?.type);
    }
    static {
      isBlob = (value) => typeof value === 'object' && value !== null && #bytes in value;
      bytesOf = (blob) => blob.#bytes;
      typeIn = (blob) => blob.#type;
    }
    get size() {
      return this.#bytes.length;
    }
    get type() {
      return this.#type;
    }
    slice(start = 0, end = this.size, type = '') {
      return new Blob([this.#bytes.subarray(start, Math.max(end, -this.size))], { type });
    }
    async text() {
      return decode(this.#bytes);
    }
    async arrayBuffer() {
      return this.#bytes.slice().buffer;
    }
    async bytes() {
      return this.#bytes.slice();
    }
    stream() {
      return bridge.need('streams').ofBytes(this.#bytes.slice());
    }
    get [Symbol.toStringTag]() {
      return 'Blob';
    }
  }

  const partOf = (part) => {
    if (isBlob(part)) return bytesOf(part);
    if (part instanceof ArrayBuffer) return new Uint8Array(part);
    if (ArrayBuffer.isView(part)) return new Uint8Array(part.buffer, part.byteOffset, part.byteLength);
    return encode(bridge.text(part));
  };

  class File extends Blob {
    #name;
    #lastModified;

    constructor(parts, name, options = {}) {
      if (name === undefined) throw new TypeError('a File is made of a list of parts and a name');
      super(parts, options);
      this.#name = bridge.text(name);
      this.#lastModified = options?.lastModified === undefined ? Date.now() : Math.trunc(Number(options.lastModified)) || 0;
    }
    get name() {
      return this.#name;
    }
    get lastModified() {
      return this.#lastModified;
    }
    get [Symbol.toStringTag]() {
      return 'File';
    }
  }

  const entryOf = (name, value, filename) => {
    if (!isBlob(value)) {
      if (filename !== undefined) throw new TypeError('FormData: only a Blob or a File has a file name');
      return [bridge.text(name), bridge.text(value)];
    }
    if (value instanceof File && filename === undefined) return [bridge.text(name), value];
    const options = { type: value.type, lastModified: value instanceof File ? value.lastModified : undefined };
    return [bridge.text(name), new File([value], filename ?? 'blob', options)];
  };

  let entriesOf;

  class FormData {
    #entries = [];

    constructor(form) {
      if (form !== undefined) throw new TypeError('FormData: there are no form elements here');
    }
    static {
      entriesOf = (form) => (typeof form === 'object' && form !== null && #entries in form ? form.#entries : null);
    }
    append(name, value, filename) {
      this.#entries.push(entryOf(name, value, filename));
    }
    set(name, value, filename) {
      const entry = entryOf(name, value, filename);
      const at = this.#entries.findIndex(([known]) => known === entry[0]);
      if (at < 0) this.#entries.push(entry);
      else this.#entries = this.#entries.filter(([known], i) => i <= at || known !== entry[0]).with(at, entry);
    }
    get(name) {
      return this.#entries.find(([known]) => known === bridge.text(name))?.[1] ?? null;
    }
    getAll(name) {
      return this.#entries.filter(([known]) => known === bridge.text(name)).map(([, value]) => value);
    }
    has(name) {
      return this.#entries.some(([known]) => known === bridge.text(name));
    }
    delete(name) {
      this.#entries = this.#entries.filter(([known]) => known !== bridge.text(name));
    }
    forEach(callback, self) {
      for (const [name, value] of this) callback.call(self, value, name, this);
    }
    *entries() {
      for (const [name, value] of this.#entries) yield [name, value];
    }
    *keys() {
      for (const [name] of this.#entries) yield name;
    }
    *values() {
      for (const [, value] of this.#entries) yield value;
    }
    [Symbol.iterator]() {
      return this.entries();
    }
    get [Symbol.toStringTag]() {
      return 'FormData';
    }
  }

  // ── multipart/form-data ────────────────────────────────────────────────────────────────────────────────────────────────

  const lines = (text) => text.replace(/\r\n|\r|\n/g, '\r\n');
  const quoted = (text) => text.replaceAll('\n', '%0A').replaceAll('\r', '%0D').replaceAll('"', '%22');

  // [bytes, content type]. The boundary is random, so that no value can hold it.
  const pack = (form, limit) => {
    const boundary = '----rootlink' + bridge.offer(bridge.current(), 'crypto').randomUUID().replaceAll('-', '');
    const parts = [];
    let size = 0;
    const add = (bytes) => {
      size += bytes.length;
      if (size > limit) throw new TypeError(`the form is larger than ${limit} bytes`);
      parts.push(bytes);
    };
    for (const [name, value] of entriesOf(form)) {
      const head = `--${boundary}\r\nContent-Disposition: form-data; name="${quoted(lines(name))}"`;
      if (typeof value === 'string') add(encode(`${head}\r\n\r\n${lines(value)}\r\n`));
      else {
        add(encode(`${head}; filename="${quoted(value.name)}"\r\nContent-Type: ${value.type || 'application/octet-stream'}\r\n\r\n`));
        add(bytesOf(value));
        add(encode('\r\n'));
      }
    }
    add(encode(`--${boundary}--\r\n`));
    return [join(parts), `multipart/form-data; boundary=${boundary}`];
  };

  // One character for each byte, so that a place in the text is a place in the bytes.
  const latin1 = (bytes) => {
    let text = '';
    for (let i = 0; i < bytes.length; i += CHUNK) text += String.fromCharCode(...bytes.subarray(i, i + CHUNK));
    return text;
  };

  const malformed = () => new TypeError('the body is not a proper multipart/form-data');
  const parameter = (header, name) => {
    const [, quotedValue, plain] = new RegExp(`(?:^|[;\\s])${name}=(?:"([^"]*)"|([^\\s;"]+))`, 'i').exec(header) ?? [];
    return (quotedValue ?? plain)?.replace(/%0A|%0D|%22/gi, decodeURIComponent);
  };

  const unpack = (bytes, boundary) => {
    const text = latin1(bytes);
    const form = new FormData();
    let at = text.startsWith('--' + boundary) ? 2 + boundary.length : -1;
    while (at > 0) {
      if (text.startsWith('--', at) && /^(?:\r\n)?$/.test(text.slice(at + 2, at + 5))) return form;
      if (!text.startsWith('\r\n', at)) break;
      const head = text.startsWith('\r\n', at + 2) ? at : text.indexOf('\r\n\r\n', at);
      const end = head < 0 ? -1 : text.indexOf('\r\n--' + boundary, head + 2);
      if (end < 0) break;
      const headers = decode(bytes.subarray(at + 2, head)).split('\r\n');
      const field = (name) => headers.find((line) => line.toLowerCase().startsWith(name + ':'))?.slice(name.length + 1).trim();
      const disposition = field('content-disposition') ?? '';
      const name = /^form-data\s*;/i.test(disposition) ? parameter(disposition, 'name') : undefined;
      if (name === undefined) break;
      const content = bytes.subarray(Math.min(head + 4, end), end);
      const filename = parameter(disposition, 'filename');
      if (filename === undefined) form.append(name, new (bridge.need('encoding').TextDecoder)('utf-8', { ignoreBOM: true }).decode(content));
      else form.append(name, new File([content], filename, { type: field('content-type') ?? 'text/plain' }));
      at = end + 4 + boundary.length;
    }
    throw malformed();
  };

  const parse = (bytes, type) => {
    if (/^multipart\/form-data\s*(?:;|$)/i.test(type)) {
      const boundary = parameter(type, 'boundary');
      if (boundary === undefined) throw malformed();
      return unpack(bytes, boundary);
    }
    if (!/^application\/x-www-form-urlencoded\s*(?:;|$)/i.test(type)) throw new TypeError('formData needs a body of multipart/form-data or application/x-www-form-urlencoded');
    const form = new FormData();
    for (const [name, value] of new (bridge.need('url').URLSearchParams)(decode(bytes))) form.append(name, value);
    return form;
  };

  return { Blob, File, FormData, isBlob, bytesOf, typeIn, isForm: (value) => entriesOf(value) !== null, pack, parse };
};
//# sourceURL=rootlink:forms
