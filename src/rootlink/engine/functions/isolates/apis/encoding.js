// TextEncoder, TextDecoder (UTF-8, UTF-16LE, UTF-16BE, windows-1252 with its many names such as latin1 and ascii), atob, btoa.
// https://encoding.spec.whatwg.org, https://infra.spec.whatwg.org/#forgiving-base64
(bridge) => {
  'use strict';
  const { fault } = bridge;
  const CHUNK = 8192;
  const LABELS = {
    'utf-8': 'unicode-1-1-utf-8 unicode11utf8 unicode20utf8 utf-8 utf8 x-unicode20utf8',
    'utf-16le': 'csunicode iso-10646-ucs-2 ucs-2 unicode unicodefeff utf-16 utf-16le',
    'utf-16be': 'unicodefffe utf-16be',
    'windows-1252':
      'ansi_x3.4-1968 ascii cp1252 cp819 csisolatin1 ibm819 iso-8859-1 iso-ir-100 iso8859-1 iso88591 iso_8859-1 iso_8859-1:1987 l1 latin1 us-ascii windows-1252 x-cp1252',
  };
  const encodingOf = (label) => {
    const name = bridge.text(label).replace(/^[\t\n\f\r ]+/, '').toLowerCase();
    const trimmed = name.slice(0, 64).replace(/[\t\n\f\r ]+$/, ''); // the longest label is shorter; no quadratic time
    const rest = name.slice(64);
    if (/[^\t\n\f\r ]/.test(rest)) return undefined;
    return Object.keys(LABELS).find((encoding) => LABELS[encoding].split(' ').includes(trimmed));
  };

  // What windows-1252 has from 0x80 to 0x9F.
  const UPPER = '\u20ac\x81\u201a\u0192\u201e\u2026\u2020\u2021\u02c6\u2030\u0160\u2039\u0152\x8d\u017d\x8f\x90\u2018\u2019\u201c\u201d\u2022\u2013\u2014\u02dc\u2122\u0161\u203a\u0153\x9d\u017e\u0178';

  const fromUnits = (units, length) => {
    let out = '';
    for (let i = 0; i < length; i += CHUNK) out += String.fromCharCode(...units.subarray(i, Math.min(i + CHUNK, length)));
    return out;
  };

  const bytesOf = (value) => {
    if (value === undefined) return new Uint8Array(0);
    if (value instanceof ArrayBuffer) return new Uint8Array(value);
    if (ArrayBuffer.isView(value)) return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
    throw new TypeError('decode needs an ArrayBuffer or a view of one');
  };

  // Writes code points as UTF-8 until the target is full; returns how many units were read and bytes written.
  const write = (text, target) => {
    const room = target.length;
    let read = 0;
    let written = 0;
    while (read < text.length) {
      const point = text.codePointAt(read);
      if (point < 0x80) {
        if (written >= room) break;
        target[written++] = point;
      } else if (point < 0x800) {
        if (written + 2 > room) break;
        target[written++] = 0xc0 | (point >> 6);
        target[written++] = 0x80 | (point & 0x3f);
      } else if (point < 0x10000) {
        if (written + 3 > room) break;
        target[written++] = 0xe0 | (point >> 12);
        target[written++] = 0x80 | ((point >> 6) & 0x3f);
        target[written++] = 0x80 | (point & 0x3f);
      } else {
        if (written + 4 > room) break;
        target[written++] = 0xf0 | (point >> 18);
        target[written++] = 0x80 | ((point >> 12) & 0x3f);
        target[written++] = 0x80 | ((point >> 6) & 0x3f);
        target[written++] = 0x80 | (point & 0x3f);
        read++;
      }
      read++;
    }
    return { read, written };
  };

  class TextEncoder {
    get encoding() {
      return 'utf-8';
    }
    encode(input = '') {
      const text = bridge.text(input);
      const target = new Uint8Array(text.length * 3);
      return target.slice(0, write(text, target).written);
    }
    encodeInto(input, target) {
      if (!(target instanceof Uint8Array)) throw new TypeError('encodeInto needs a Uint8Array to write to');
      return write(bridge.text(input), target);
    }
    get [Symbol.toStringTag]() {
      return 'TextEncoder';
    }
  }

  // How long the sequence is that a lead byte begins, and the bounds of its second byte; 0: not a lead byte.
  const lead = (byte) => {
    if (byte < 0x80) return [1, 0, 0];
    if (byte >= 0xc2 && byte <= 0xdf) return [2, 0x80, 0xbf];
    if (byte >= 0xe0 && byte <= 0xef) return [3, byte === 0xe0 ? 0xa0 : 0x80, byte === 0xed ? 0x9f : 0xbf];
    if (byte >= 0xf0 && byte <= 0xf4) return [4, byte === 0xf0 ? 0x90 : 0x80, byte === 0xf4 ? 0x8f : 0xbf];
    return [0, 0, 0];
  };

  class TextDecoder {
    #encoding;
    #fatal;
    #ignoreBOM;
    #rest = new Uint8Array(0);
    #started = false;

    constructor(label = 'utf-8', options) {
      this.#encoding = encodingOf(label);
      if (this.#encoding === undefined) {
        const known = Object.keys(LABELS).join(', ');
        throw new RangeError(`TextDecoder: the encoding ${bridge.text(label).slice(0, 40)} is not supported; these are: ${known}`);
      }
      this.#fatal = Boolean(options?.fatal);
      this.#ignoreBOM = Boolean(options?.ignoreBOM);
    }
    get encoding() {
      return this.#encoding;
    }
    get fatal() {
      return this.#fatal;
    }
    get ignoreBOM() {
      return this.#ignoreBOM;
    }

    decode(input, options) {
      const stream = Boolean(options?.stream);
      let bytes = bytesOf(input);
      if (this.#rest.length) {
        const joined = new Uint8Array(this.#rest.length + bytes.length);
        joined.set(this.#rest);
        joined.set(bytes, this.#rest.length);
        bytes = joined;
      }
      const units = new Uint16Array(bytes.length + 1);
      const { length, rest } = this.#into(bytes, units, stream);
      this.#rest = bytes.slice(bytes.length - rest);
      const bom = this.#encoding !== 'windows-1252' && length > 0 && !this.#started && !this.#ignoreBOM && units[0] === 0xfeff;
      this.#started = stream && (this.#started || length > 0);
      const skip = bom ? 1 : 0;
      return fromUnits(units.subarray(skip), length - skip);
    }
    get [Symbol.toStringTag]() {
      return 'TextDecoder';
    }

    #into(bytes, units, stream) {
      if (this.#encoding === 'utf-8') return this.#utf8(bytes, units, stream);
      if (this.#encoding !== 'windows-1252') return this.#utf16(bytes, units, stream);
      for (let i = 0; i < bytes.length; i++) units[i] = bytes[i] >= 0x80 && bytes[i] < 0xa0 ? UPPER.charCodeAt(bytes[i] - 0x80) : bytes[i];
      return { length: bytes.length, rest: 0 };
    }

    #bad(units, length) {
      if (this.#fatal) {
        this.#rest = new Uint8Array(0);
        this.#started = false;
        throw new TypeError(`the data is not valid ${this.#encoding}`);
      }
      units[length] = 0xfffd;
      return length + 1;
    }

    #utf8(bytes, units, stream) {
      let length = 0;
      let i = 0;
      while (i < bytes.length) {
        const byte = bytes[i];
        if (byte < 0x80) {
          units[length++] = byte;
          i++;
          continue;
        }
        const [size, low, high] = lead(byte);
        let seen = 1;
        while (seen < size && i + seen < bytes.length) {
          const next = bytes[i + seen];
          if (next < (seen === 1 ? low : 0x80) || next > (seen === 1 ? high : 0xbf)) break;
          seen++;
        }
        if (seen === size) {
          let point = byte & (0xff >> (size + 1));
          for (let j = 1; j < size; j++) point = (point << 6) | (bytes[i + j] & 0x3f);
          if (point > 0xffff) {
            units[length++] = 0xd800 | ((point - 0x10000) >> 10);
            units[length++] = 0xdc00 | ((point - 0x10000) & 0x3ff);
          } else units[length++] = point;
        } else if (stream && size && i + seen === bytes.length) return { length, rest: seen };
        else length = this.#bad(units, length);
        i += seen;
      }
      return { length, rest: 0 };
    }

    #utf16(bytes, units, stream) {
      const [low, high] = this.#encoding === 'utf-16le' ? [0, 1] : [1, 0];
      let length = 0;
      let i = 0;
      for (; i + 1 < bytes.length; i += 2) {
        const unit = bytes[i + low] | (bytes[i + high] << 8);
        if (unit >= 0xd800 && unit <= 0xdbff) {
          if (i + 3 >= bytes.length) break;
          const next = bytes[i + 2 + low] | (bytes[i + 2 + high] << 8);
          if (next >= 0xdc00 && next <= 0xdfff) {
            units[length++] = unit;
            units[length++] = next;
            i += 2;
          } else length = this.#bad(units, length);
        } else if (unit >= 0xdc00 && unit <= 0xdfff) length = this.#bad(units, length);
        else units[length++] = unit;
      }
      if (i === bytes.length) return { length, rest: 0 };
      return stream ? { length, rest: bytes.length - i } : { length: this.#bad(units, length), rest: 0 };
    }
  }

  const atob = (data) => {
    let bytes;
    try {
      bytes = Uint8Array.fromBase64(`${data}`);
    } catch {
      throw fault('InvalidCharacterError', 'atob: the text is not base64', Error);
    }
    return fromUnits(bytes, bytes.length);
  };

  const btoa = (data) => {
    const text = `${data}`;
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) {
      const unit = text.charCodeAt(i);
      if (unit > 255) throw fault('InvalidCharacterError', 'btoa: the text has a character above U+00FF', Error);
      bytes[i] = unit;
    }
    return bytes.toBase64();
  };

  return { TextEncoder, TextDecoder, atob, btoa };
};
//# sourceURL=rootlink:encoding
