/** What the store holds, checked when it is read: enough that no damaged record gets any further. */
import { z } from 'zod'

const id = z.string().regex(/^[0-9a-f]{64}$/)
const loose = z.looseObject({})

export const schemas = {
  meta: { version: 1, schema: loose },
  network: {
    version: 1,
    schema: z.looseObject({
      id,
      name: z.string(),
      driver: z.string(),
      created: z.string(),
      ipv4: z.boolean(),
      ipv6: z.boolean(),
      config: loose,
      pools: z.array(
        z.looseObject({
          family: z.union([z.literal(4), z.literal(6)]),
          subnet: z.string(),
          poolId: z.string(),
        }),
      ),
      state: loose,
      deleting: z.boolean(),
    }),
  },
  endpoint: {
    version: 1,
    schema: z.looseObject({
      id,
      networkId: id,
      name: z.string(),
      config: loose,
      mac: z.string(),
      addresses: z.record(z.string(), z.looseObject({ address: z.string(), poolId: z.string() })),
      join: z
        .looseObject({ sandboxId: id, options: loose, interfaceName: z.string(), published: z.array(loose) })
        .optional(),
    }),
  },
  sandbox: {
    version: 1,
    schema: z.looseObject({ id, containerId: z.string(), config: loose, key: z.string().optional() }),
  },
  service: {
    version: 1,
    schema: z.looseObject({
      id,
      networkId: id,
      name: z.string(),
      created: z.string(),
      ports: z.array(loose),
      vips: z.record(z.string(), z.object({ address: z.string(), poolId: z.string() })),
    }),
  },
}
