/** The mark that a controller leaves on its links (their alias). */
export const markOf = (controller: string, endpointId: string): string =>
  `${controller}:${endpointId.slice(0, 12)}`

export const bearsMark = (controller: string, alias: string | undefined): boolean =>
  alias?.startsWith(`${controller}:`) ?? false
