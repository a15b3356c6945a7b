// A grey picture of 8 or 16 bits as a PNG file, its lines as differences from those above.
async function png(values, width, height, bits) {
  const bytes = bits / 8, stride = width * bytes + 1, lines = new Uint8Array(height * stride);
  for (let y = 0, i = 0; y < height; y++) {
    let at = y * stride;
    lines[at++] = 2;
    for (let x = 0; x < width; x++, i++) {
      const value = values[i], above = y ? values[i - width] : 0;
      if (bits === 16) lines[at++] = (value >> 8) - (above >> 8);
      lines[at++] = value - above;
    }
  }
  const stream = new Blob([lines]).stream().pipeThrough(new CompressionStream("deflate"));
  const packed = new Uint8Array(await new Response(stream).arrayBuffer());
  const head = new DataView(new ArrayBuffer(13));
  head.setUint32(0, width);
  head.setUint32(4, height);
  head.setUint8(8, bits);
  const parts = [["IHDR", new Uint8Array(head.buffer)], ["IDAT", packed], ["IEND", new Uint8Array()]];
  return new Blob(["\x89PNG\r\n\x1a\n"].map((s) => Uint8Array.from(s, (c) => c.charCodeAt(0)))
    .concat(parts.map(([kind, content]) => chunk(kind, content))), { type: "image/png" });
}

const CRC = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});
function chunk(kind, content) {
  const bytes = new Uint8Array(content.length + 12), view = new DataView(bytes.buffer);
  view.setUint32(0, content.length);
  bytes.set(Uint8Array.from(kind, (c) => c.charCodeAt(0)), 4);
  bytes.set(content, 8);
  let crc = -1;
  for (const byte of bytes.subarray(4, -4)) crc = CRC[(crc ^ byte) & 255] ^ (crc >>> 8);
  view.setUint32(bytes.length - 4, ~crc);
  return bytes;
}
