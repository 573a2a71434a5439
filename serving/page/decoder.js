// The reference decoder of binary prices. It has no dependencies; programs may copy it.
//
//   socket.binaryType = "arraybuffer";
//   for (const [id, price, volume] of decodePrices(event.data)) …   // ids: {"type": "symbols"}

const TABLE = Uint32Array.from({length: 256}, (_, byte) => {
  for (let bit = 0; bit < 8; bit++) byte = byte & 1 ? (byte >>> 1) ^ 0xedb88320 : byte >>> 1;
  return byte;
});
const HEADER = 6;  // crc32 u32, count u16
const ITEM = 18;   // symbol_id u16, price f64, volume f64

function crc32(bytes) {
  let sum = 0xffffffff;
  for (const byte of bytes) sum = TABLE[(sum ^ byte) & 0xff] ^ (sum >>> 8);
  return (sum ^ 0xffffffff) >>> 0;
}

/** Ids of symbols, prices and volumes of a message (ArrayBuffer); throws RangeError where it was
 * changed on its way, or is none. All little-endian; the checksum is of what follows it. */
export function decodePrices(message) {
  if (message.byteLength < HEADER)
    throw new RangeError(`${message.byteLength} bytes; a message has ${HEADER} at least`);
  const view = new DataView(message);
  if (view.getUint32(0, true) !== crc32(new Uint8Array(message, 4)))
    throw new RangeError("the checksum differs");
  const count = view.getUint16(4, true);
  if (message.byteLength !== HEADER + count * ITEM)
    throw new RangeError(`${message.byteLength} bytes for ${count} items`);
  const items = new Array(count);
  for (let item = 0, at = HEADER; item < count; item++, at += ITEM)
    items[item] = [view.getUint16(at, true), view.getFloat64(at + 2, true), view.getFloat64(at + 10, true)];
  return items;
}
