// Domain to ASCII: UTS #46, non-transitional, joiners and bidi checked (https://url.spec.whatwg.org/#idna), for domains that are not
// ASCII. The mapping is not a table but derived from V8's own Unicode properties. Left out: joining types and bidi classes of
// historic scripts, and bidi classes of symbols. A domain longer than MAX_CHARS is refused: a name in DNS has 253.
(bridge) => {
  'use strict';
  const MAX_CHARS = 1024;
  const FULL_STOPS = /[\u3002\uff0e\uff61]/g;
  const DISALLOWED = /[\p{Cn}\p{Cs}\p{Co}\p{Cc}\p{Cf}\p{Z}\u2ff0-\u2fff\u31ef\ufffc\ufffd]/u;
  const FORMATS = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u{e0001}\u{e0020}-\u{e007f}]/u; // ignorable, and yet not ignored
  const KEPT = 'ßς\u200c\u200d';

  // ── mapping ────────────────────────────────────────────────────────────────────────────────────────────────────────────

  const fold = (c) => {
    if (c === 'ß' || c === 'ı') return c;
    return /\p{Script=Cherokee}/u.test(c) ? c.toUpperCase() : c.toUpperCase().toLowerCase();
  };

  // What one code point becomes, or null if it may not be in a domain.
  const mapped = (c) => {
    if (c < '\x80') return c.toLowerCase();
    if (KEPT.includes(c)) return c;
    if (c === 'ẞ') return 'ß';
    if (/\p{DI}/u.test(c)) return FORMATS.test(c) || /\p{Cn}/u.test(c) ? null : '';
    if (!/\p{CWKCF}/u.test(c)) return DISALLOWED.test(c) ? null : c;
    const out = [...c.normalize('NFKC')].map(fold).join('').normalize('NFKC');
    return DISALLOWED.test(out.replaceAll(' ', '')) || /[.\u3002]/.test(out) ? null : out;
  };

  // ── Punycode (RFC 3492) ────────────────────────────────────────────────────────────────────────────────────────────────

  const adapt = (delta, points, first) => {
    let d = first ? Math.floor(delta / 700) : delta >> 1;
    d += Math.floor(d / points);
    let k = 0;
    for (; d > 455; k += 36) d = Math.floor(d / 35);
    return k + Math.floor((36 * d) / (d + 38));
  };

  const digit = (value) => String.fromCharCode(value < 26 ? value + 97 : value + 22);
  const valueOf = (unit) => (unit >= 97 && unit <= 122 ? unit - 97 : unit >= 48 && unit <= 57 ? unit - 22 : 36);
  const threshold = (k, bias) => (k <= bias ? 1 : k >= bias + 26 ? 26 : k - bias);

  const encode = (label) => {
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
          const t = threshold(k, bias);
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

  // The label, or null.
  const decode = (text) => {
    const end = text.lastIndexOf('-');
    const out = end > 0 ? [...text.slice(0, end)] : [];
    let [n, bias, at, i] = [128, 72, 0, end > 0 ? end + 1 : 0];
    while (i < text.length) {
      const before = at;
      let weight = 1;
      for (let k = 36; ; k += 36) {
        const value = valueOf(text.charCodeAt(i++));
        if (value > 35) return null;
        at += value * weight;
        const t = threshold(k, bias);
        if (value < t) break;
        weight *= 36 - t;
        if (at > 2 ** 31 || weight > 2 ** 31) return null;
      }
      bias = adapt(at - before, out.length + 1, before === 0);
      n += Math.floor(at / (out.length + 1));
      if (n > 0x10ffff) return null;
      at %= out.length + 1;
      out.splice(at++, 0, String.fromCodePoint(n));
    }
    return out.join('');
  };

  // ── joiners (RFC 5892, appendix A) ─────────────────────────────────────────────────────────────────────────────────────

  const VIRAMA =
    '\u094d\u09cd\u0a4d\u0acd\u0b4d\u0bcd\u0c4d\u0ccd\u0d3b\u0d3c\u0d4d\u0dca\u0e3a\u0eba\u0f84\u1039\u103a\u1714\u1715\u1734\u17d2' +
    '\u1a60\u1b44\u1baa\u1bab\u1bf2\u1bf3\u2d7f\ua806\ua82c\ua8c4\ua953\ua9c0\uaaf6\uabed\u{10a3f}\u{11046}\u{11070}\u{1107f}' +
    '\u{110b9}\u{11133}\u{11134}\u{111c0}\u{11235}\u{112ea}\u{1134d}\u{11442}\u{114c2}\u{115bf}\u{1163f}\u{116b6}\u{1172b}\u{11839}' +
    '\u{1193d}\u{1193e}\u{119e0}\u{11a34}\u{11a47}\u{11a99}\u{11c3f}\u{11d44}\u{11d45}\u{11d97}';
  const JOINS_BOTH =
    '\u0620\u0626\u0628\u062a-\u062e\u0633-\u063f\u0641-\u0647\u0649\u064a\u066e\u066f\u0678-\u0687\u069a-\u06bf\u06c1\u06c2\u06cc' +
    '\u06ce\u06d0\u06d1\u06fa-\u06fc\u06ff\u0712-\u0714\u071a-\u071d\u071f-\u0727\u0729\u072b\u072d\u072e\u074e-\u0758\u075c-\u076a' +
    '\u076d-\u0770\u0772\u0775-\u0777\u077a-\u077f\u07ca-\u07ea\u0841-\u0845\u0848\u084a-\u0853\u0855\u0860\u0862-\u0865\u0868\u0886' +
    '\u0889-\u088d\u08a0-\u08a9\u08af\u08b0\u08b3-\u08b8\u08ba-\u08c8\u1807\u1820-\u1878\u1887-\u18a8\u18aa\ua840-\ua872\u{1e900}-\u{1e943}';
  const JOINS_RIGHT =
    '\u0622-\u0625\u0627\u0629\u062f-\u0632\u0648\u0671-\u0673\u0675-\u0677\u0688-\u0699\u06c0\u06c3-\u06cb\u06cd\u06cf\u06d2\u06d3' +
    '\u06d5\u06ee\u06ef\u0710\u0715-\u0719\u071e\u0728\u072a\u072c\u072f\u074d\u0759-\u075b\u076b\u076c\u0771\u0773\u0774\u0778' +
    '\u0779\u0840\u0846\u0847\u0849\u0854\u0856-\u0858\u0867\u0869\u086a\u0870-\u0882\u088e\u08aa-\u08ac\u08ae\u08b1\u08b2\u08b9';
  const TRANSPARENT = '[\\p{Mn}\\p{Me}\\u070f\\u1806]*';
  const JOINER = new RegExp(
    `(?<=[${VIRAMA}])[\\u200c\\u200d]|(?<=[${JOINS_BOTH}]${TRANSPARENT})\\u200c(?=${TRANSPARENT}[${JOINS_BOTH}${JOINS_RIGHT}])`, 'gu');
  const hasLooseJoiner = (label) => /[\u200c\u200d]/.test(label.replace(JOINER, ''));

  // ── bidi (RFC 5893) ────────────────────────────────────────────────────────────────────────────────────────────────────

  const RIGHT_TO_LEFT = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff\u{10800}-\u{10fff}\u{1e800}-\u{1efff}]/u;
  const NEUTRAL = /[\u0606\u0607\u0609\u060a\u060c\u060e\u060f\u066a\u06de\u06e9\u07f6-\u07f9\ufb29\ufbc2\ufd3e-\ufd4f\ufdcf\ufdfd-\ufdff\u{1091f}\u{10b39}-\u{10b3f}\u{10d6e}\u{10d8e}\u{10d8f}\u{1eef0}\u{1eef1}]/u;

  // R (right to left), L (left to right), A (Arabic number), E (European number), N (mark that does not space), O (other)
  const direction = (c) => {
    if (/[\p{Mn}\p{Me}]/u.test(c)) return 'N';
    if (/[0-9\u06f0-\u06f9\u{102e1}-\u{102fb}]/u.test(c)) return 'E';
    if (/[\u0660-\u0669\u066b\u066c\u{10d30}-\u{10d39}\u{10e60}-\u{10e7e}]/u.test(c)) return 'A';
    if (RIGHT_TO_LEFT.test(c)) return NEUTRAL.test(c) ? 'O' : 'R';
    return /[\p{L}\p{Mc}\p{Nd}\p{Nl}]/u.test(c) ? 'L' : 'O';
  };

  const isBidi = (directions) => {
    if (directions[0] === 'R') return /^[^L]*[REA]N*$/.test(directions) && !(directions.includes('E') && directions.includes('A'));
    return directions === '' || /^L(?:[^RA]*[LE])?N*$/.test(directions);
  };

  // ── labels ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

  // The label in Unicode, or null if it is not valid.
  const unicode = (label) => {
    let text = label;
    if (label.startsWith('xn--')) {
      text = /[^\0-\x7f]/.test(label) ? null : decode(label.slice(4));
      if (text === null || !/[^\0-\x7f]/.test(text) || text.normalize('NFC') !== text) return null;
      for (const c of text) if (mapped(c) !== c) return null;
    }
    return /^\p{M}/u.test(text) || text.startsWith('xn--') || hasLooseJoiner(text) ? null : text;
  };

  // The domain in ASCII, or null.
  const toAscii = (domain) => {
    if (domain.length > MAX_CHARS) return null;
    let text = '';
    for (const c of domain.replace(FULL_STOPS, '.')) {
      const one = mapped(c);
      if (one === null) return null;
      text += one;
    }
    const labels = text.normalize('NFC').split('.').map(unicode);
    if (labels.includes(null)) return null;
    const directions = labels.map((label) => [...label].map(direction).join(''));
    if (directions.some((each) => /[RA]/.test(each)) && !directions.every(isBidi)) return null;
    return labels.map((label) => (/^[\0-\x7f]*$/.test(label) ? label : 'xn--' + encode(label))).join('.');
  };

  return { toAscii };
};
//# sourceURL=rootlink:idna
