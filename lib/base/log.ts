/** What the caller may hand in to hear what the library does; console fits as it is. Default: silence. */
export interface Logger {
  debug(message: string, details?: object): void
  info(message: string, details?: object): void
  warn(message: string, details?: object): void
  error(message: string, details?: object): void
}

const ignore = (): void => {}
export const SILENT: Logger = { debug: ignore, info: ignore, warn: ignore, error: ignore }
