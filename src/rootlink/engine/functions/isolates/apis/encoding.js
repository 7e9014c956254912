// TextEncoder, TextDecoder (UTF-8 and UTF-16LE), atob, btoa. https://encoding.spec.whatwg.org, https://infra.spec.whatwg.org/#forgiving-base64
(bridge) => {
  'use strict';
  const { fault } = bridge;
  const CHUNK = 8192;
  const LABELS = { 'utf-8': 'utf-8', utf8: 'utf-8', 'unicode-1-1-utf-8': 'utf-8', 'utf-16le': 'utf-16le', 'utf-16': 'utf-16le' };

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
    let read = 0;
    let written = 0;
    while (read < text.length) {
      const point = text.codePointAt(read);
      const size = point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
      if (written + size > target.length) break;
      if (size === 1) target[written++] = point;
      else {
        target[written++] = [0, 0, 0xc0, 0xe0, 0xf0][size] | (point >> (6 * (size - 1)));
        for (let i = size - 2; i >= 0; i--) target[written++] = 0x80 | ((point >> (6 * i)) & 0x3f);
      }
      read += size === 4 ? 2 : 1;
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
      return write(bridge.text(input), target);
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

    constructor(label = 'utf-8', { fatal = false, ignoreBOM = false } = {}) {
      this.#encoding = LABELS[bridge.text(label).trim().toLowerCase()];
      if (this.#encoding === undefined) throw new RangeError(`TextDecoder: the encoding ${bridge.text(label).slice(0, 40)} is not supported`);
      this.#fatal = Boolean(fatal);
      this.#ignoreBOM = Boolean(ignoreBOM);
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

    decode(input, { stream = false } = {}) {
      let bytes = bytesOf(input);
      if (this.#rest.length) {
        const joined = new Uint8Array(this.#rest.length + bytes.length);
        joined.set(this.#rest);
        joined.set(bytes, this.#rest.length);
        bytes = joined;
      }
      const units = new Uint16Array(bytes.length + 1);
      const { length, rest } = this.#encoding === 'utf-8' ? this.#utf8(bytes, units, stream) : this.#utf16(bytes, units, stream);
      this.#rest = bytes.slice(bytes.length - rest);
      const skip = length > 0 && !this.#started && !this.#ignoreBOM && units[0] === 0xfeff ? 1 : 0;
      this.#started = stream && (this.#started || length > 0);
      return fromUnits(units.subarray(skip), length - skip);
    }

    #bad(units, length) {
      if (this.#fatal) {
        this.#rest = new Uint8Array(0);
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
      let length = 0;
      let i = 0;
      for (; i + 1 < bytes.length; i += 2) {
        const unit = bytes[i] | (bytes[i + 1] << 8);
        if (unit >= 0xd800 && unit <= 0xdbff) {
          if (i + 3 >= bytes.length) break;
          const next = bytes[i + 2] | (bytes[i + 3] << 8);
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
