// Inflate (RFC 1951) and the codings of packing.py. Small, so that no browser feature is needed.
function inflate(source) {
  let at = 0, bits = 0, held = 0, out = new Uint8Array(source.length * 4 + 1024), n = 0;
  const need = (more) => {
    if (n + more <= out.length) return;
    const larger = new Uint8Array(Math.max(out.length * 2, n + more));
    larger.set(out);
    out = larger;
  };
  const take = (count) => {
    while (held < count) { bits |= source[at++] << held; held += 8; }
    const value = bits & ((1 << count) - 1);
    bits >>>= count;
    held -= count;
    return value;
  };
  const tree = (lengths) => {
    const count = new Uint16Array(16), offset = new Uint16Array(16);
    const symbol = new Uint16Array(lengths.length);
    lengths.forEach((l) => { count[l]++; });
    count[0] = 0;
    for (let i = 1; i < 16; i++) offset[i] = offset[i - 1] + count[i - 1];
    lengths.forEach((l, s) => { if (l) symbol[offset[l]++] = s; });
    return { count, symbol };
  };
  const decode = ({ count, symbol }) => {
    let code = 0, first = 0, index = 0;
    for (let length = 1; length < 16; length++) {
      code |= take(1);
      const c = count[length];
      if (code - c < first) return symbol[index + code - first];
      index += c;
      first = (first + c) << 1;
      code <<= 1;
    }
    throw new Error("the data of this page are damaged");
  };
  const BASE = [3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99,
    115, 131, 163, 195, 227, 258];
  const MORE = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
  const FAR = [1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025,
    1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577];
  const fixed = () => {
    const lengths = new Array(288).fill(8);
    lengths.fill(9, 144, 256).fill(7, 256, 280);
    return [tree(lengths), tree(new Array(30).fill(5))];
  };
  const dynamic = () => {
    const literals = take(5) + 257, distances = take(5) + 1, codes = take(4) + 4;
    const order = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
    const small = new Array(19).fill(0);
    for (let i = 0; i < codes; i++) small[order[i]] = take(3);
    const reader = tree(small), lengths = [];
    while (lengths.length < literals + distances) {
      const s = decode(reader);
      if (s < 16) { lengths.push(s); continue; }
      const value = s === 16 ? lengths[lengths.length - 1] : 0;
      let times = s === 16 ? 3 + take(2) : s === 17 ? 3 + take(3) : 11 + take(7);
      while (times--) lengths.push(value);
    }
    return [tree(lengths.slice(0, literals)), tree(lengths.slice(literals))];
  };
  for (let last = 0; !last;) {
    last = take(1);
    const kind = take(2);
    if (kind === 0) {
      bits = held = 0;
      const length = source[at] | (source[at + 1] << 8);
      at += 4;
      need(length);
      out.set(source.subarray(at, at + length), n);
      at += length;
      n += length;
      continue;
    }
    const [literal, distance] = kind === 1 ? fixed() : dynamic();
    for (;;) {
      const s = decode(literal);
      if (s === 256) break;
      if (s < 256) { need(1); out[n++] = s; continue; }
      const length = BASE[s - 257] + take(MORE[s - 257]);
      const d = decode(distance), back = FAR[d] + take(d < 4 ? 0 : (d >> 1) - 1);
      need(length);
      for (let i = 0; i < length; i++, n++) out[n] = out[n - back];
    }
  }
  return out.slice(0, n);
}

function bytesOf(text) {
  return inflate(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)));
}

function numbersOf(coded) {
  const bytes = bytesOf(coded.data);
  if (coded.sign === 0) return new Float32Array(bytes.buffer);
  const span = (coded.high - coded.low) / 65532;
  return Float64Array.from(new Uint16Array(bytes.buffer), (code) => {
    if (code === 0) return 0;
    if (code === 65535) return NaN;
    return coded.sign * (code === 65534 ? Infinity : 2 ** (coded.low + (code - 1) * span));
  });
}
