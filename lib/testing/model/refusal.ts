/** Thrown inside the model where the kernel would answer a request with `-errno`; never leaves {@link MockKernel}. */
export class Refusal extends Error {
  constructor(
    readonly errno: string,
    /** The kernel's extended-ack text, where it has one. */
    readonly text?: string,
  ) {
    super(text ?? errno)
  }
}

export function refuse(errno: string, text?: string): never {
  throw new Refusal(errno, text)
}
