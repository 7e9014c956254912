// crypto: random values here, from a seed of the host's for this call alone; digests and HMAC are the host's operations.
(bridge) => {
  'use strict';
  const HASHES = ['SHA-1', 'SHA-256', 'SHA-384', 'SHA-512'];
  const QUOTA = 65536;

  // ChaCha20 (RFC 8439) with the call's seed as key: its key stream is the random source.
  const rotate = (word, by) => (word << by) | (word >>> (32 - by));
  const quarter = (x, a, b, c, d) => {
    x[a] += x[b]; x[d] = rotate(x[d] ^ x[a], 16);
    x[c] += x[d]; x[b] = rotate(x[b] ^ x[c], 12);
    x[a] += x[b]; x[d] = rotate(x[d] ^ x[a], 8);
    x[c] += x[d]; x[b] = rotate(x[b] ^ x[c], 7);
  };
  const block = (key, counter) => {
    const start = new Uint32Array([0x61707865, 0x3320646e, 0x79622d32, 0x6b206574, ...key, counter, 0, 0, 0]);
    const x = start.slice();
    for (let round = 0; round < 10; round++) {
      quarter(x, 0, 4, 8, 12); quarter(x, 1, 5, 9, 13); quarter(x, 2, 6, 10, 14); quarter(x, 3, 7, 11, 15);
      quarter(x, 0, 5, 10, 15); quarter(x, 1, 6, 11, 12); quarter(x, 2, 7, 8, 13); quarter(x, 3, 4, 9, 14);
    }
    for (let i = 0; i < 16; i++) x[i] += start[i];
    return new Uint8Array(x.buffer);
  };

  const stream = (seed) => {
    const key = new Uint32Array(Uint8Array.fromHex(seed).buffer);
    let counter = 0;
    return (bytes) => {
      for (let i = 0; i < bytes.length; i += 64) bytes.set(block(key, counter++).subarray(0, Math.min(64, bytes.length - i)), i);
    };
  };

  const bytesOf = (value) => {
    if (value instanceof ArrayBuffer) return new Uint8Array(value);
    if (ArrayBuffer.isView(value)) return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
    throw new TypeError('crypto.subtle needs an ArrayBuffer or a view of one');
  };

  const unsupported = (what) => bridge.fault('NotSupportedError', `crypto.subtle: ${what} is not supported`, Error);

  const hashOf = (algorithm) => {
    const name = bridge.text(typeof algorithm === 'string' ? algorithm : algorithm?.name).toUpperCase();
    if (!HASHES.includes(name)) throw unsupported(`the hash ${name.slice(0, 40)}`);
    return name;
  };

  const nameOf = (algorithm) => bridge.text(typeof algorithm === 'string' ? algorithm : algorithm?.name).toUpperCase();

  class CryptoKey {
    #bytes;
    constructor(bytes, hash, extractable, usages) {
      this.#bytes = bytes;
      this.type = 'secret';
      this.extractable = extractable;
      this.algorithm = Object.freeze({ name: 'HMAC', hash: Object.freeze({ name: hash }), length: bytes.length * 8 });
      this.usages = Object.freeze(usages);
      Object.freeze(this);
    }
    static bytes(key, usage) {
      if (!(#bytes in key)) throw new TypeError('crypto.subtle: this is not a key');
      if (!key.usages.includes(usage)) throw bridge.fault('InvalidAccessError', `crypto.subtle: the key is not for ${usage}`, Error);
      return key.#bytes;
    }
  }
  const keyBytes = CryptoKey.bytes;
  delete CryptoKey.bytes; // a body must not read a key that is not extractable
  bridge.harden(CryptoKey);

  const importKey = async (format, data, algorithm, extractable, usages) => {
    if (format !== 'raw') throw unsupported(`the key format ${bridge.text(format).slice(0, 40)}`);
    if (nameOf(algorithm) !== 'HMAC') throw unsupported(`the algorithm ${nameOf(algorithm).slice(0, 40)}`);
    const bytes = bytesOf(data).slice();
    if (bytes.length === 0) throw bridge.fault('DataError', 'crypto.subtle: an HMAC key is not empty', Error);
    return new CryptoKey(bytes, hashOf(algorithm.hash), Boolean(extractable), [...usages].map(bridge.text));
  };

  const same = (a, b) => {
    let difference = a.length ^ b.length;
    for (let i = 0; i < a.length; i++) difference |= a[i] ^ b[i % b.length];
    return difference === 0;
  };

  const subtleOf = (call) => {
    const compute = async (kind, fields) => Uint8Array.fromBase64((await bridge.ask(call, kind, fields)).x);
    const mac = (key, usage, data) => {
      const bytes = keyBytes(key, usage);
      return compute('hmac', { a: key.algorithm.hash.name, key: bytes.toBase64(), x: bytesOf(data).toBase64() });
    };
    return {
      digest: async (algorithm, data) => (await compute('digest', { a: hashOf(algorithm), x: bytesOf(data).toBase64() })).buffer,
      importKey,
      sign: async (algorithm, key, data) => (await mac(key, 'sign', data)).buffer,
      verify: async (algorithm, key, signature, data) => same(await mac(key, 'verify', data), bytesOf(signature)),
    };
  };

  const INTEGERS = [Int8Array, Uint8Array, Uint8ClampedArray, Int16Array, Uint16Array, Int32Array, Uint32Array, BigInt64Array, BigUint64Array];

  return (call) => {
    let fill = null;
    const random = (bytes) => (fill ??= stream(call.seed))(bytes);
    const getRandomValues = (array) => {
      if (!INTEGERS.some((Type) => array instanceof Type)) throw new TypeError('getRandomValues needs an array of integers');
      if (array.byteLength > QUOTA) throw bridge.fault('QuotaExceededError', `getRandomValues gives at most ${QUOTA} bytes at once`, Error);
      random(bytesOf(array));
      return array;
    };
    const randomUUID = () => {
      const bytes = getRandomValues(new Uint8Array(16));
      bytes[6] = (bytes[6] & 0x0f) | 0x40;
      bytes[8] = (bytes[8] & 0x3f) | 0x80;
      return bytes.toHex().replace(/(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
    };
    return { crypto: { getRandomValues, randomUUID, subtle: subtleOf(call) } };
  };
};
//# sourceURL=rootlink:crypto
