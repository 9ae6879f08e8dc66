/** `02:42:ac:11:00:02` and its six bytes. */
export const macBytes = (mac: string): Buffer => Buffer.from(mac.replaceAll(':', ''), 'hex')
export const macText = (bytes: Buffer): string => bytes.toString('hex').replace(/..(?=.)/g, '$&:')
