/**
 * One line of text that carries its own checksum: `CRC32 JSON`, eight hexadecimal digits and a blank before the JSON.
 * The checksum (CRC-32, IEEE 802.3, reflected) tells a torn or rotten line from a good one; it is no protection
 * against intent. JSON has no raw line feeds, so a file of frames can be split at them and read by eye.
 */
const TABLE = Int32Array.from({ length: 256 }, (_, n) => {
  let c = n
  for (let bit = 0; bit < 8; bit++) c = c & 1 ? (c >>> 1) ^ 0xedb88320 : c >>> 1
  return c
})

export function crc32(bytes: Uint8Array): number {
  let c = -1
  for (let i = 0; i < bytes.length; i++) c = (c >>> 8) ^ TABLE[(c ^ bytes[i]!) & 0xff]!
  return ~c >>> 0
}

const hex = (text: string): string => crc32(Buffer.from(text)).toString(16).padStart(8, '0')

export const frame = (json: string): string => `${hex(json)} ${json}`

/** The value of a frame; undefined when it is not one. */
export function unframe(line: string): unknown {
  const json = line.slice(9)
  if (line[8] !== ' ' || line.slice(0, 8) !== hex(json)) return undefined
  try {
    return JSON.parse(json)
  } catch {
    return undefined
  }
}
