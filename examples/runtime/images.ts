/**
 * "Images": there is no registry here. Every image is the same busybox root file system, made from the machine's own static
 * busybox, with the command, the environment and the exposed ports that its namesake would have.
 */
import { execFile } from 'node:child_process'
import { cpSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { HttpError } from 'libcnm/api'

const run = promisify(execFile)

export interface Image {
  name: string
  command: string[]
  /** `PORT/PROTOCOL` */
  exposed: string[]
  environment: string[]
}

const server = (port: number) => ['httpd', '-f', '-p', `${port}`, '-h', '/www']

const IMAGES: Record<string, Omit<Image, 'name'>> = {
  busybox: { command: ['sh'], exposed: [], environment: [] },
  alpine: { command: ['sh'], exposed: [], environment: [] },
  nginx: { command: server(80), exposed: ['80/tcp'], environment: ['NGINX_VERSION=0'] },
  httpd: { command: server(80), exposed: ['80/tcp'], environment: [] },
  tomcat: { command: server(8080), exposed: ['8080/tcp'], environment: ['JAVA_HOME=/opt/java/openjdk'] },
}

/** By name; tags are ignored. Throws 404, which makes a client try to pull. */
export function imageOf(reference: string): Image {
  const name = reference.replace(/^(docker\.io\/)?(library\/)?/, '').replace(/[:@].*$/, '')
  const image = IMAGES[name]
  if (!image)
    throw new HttpError(404, `No such image: ${reference} (there are ${Object.keys(IMAGES).join(', ')})`)
  return { name: reference, ...image }
}

/** The root file system that all images share. */
export async function makeRootfs(directory: string, busybox = '/bin/busybox'): Promise<void> {
  for (const name of ['bin', 'dev', 'etc', 'proc', 'root', 'sys', 'tmp', 'www'])
    mkdirSync(join(directory, name), { recursive: true })
  cpSync(busybox, join(directory, 'bin/busybox'), { dereference: true })
  await run('chroot', [directory, '/bin/busybox', '--install', '-s', '/bin']).catch((error: unknown) => {
    throw new Error(`${busybox} does not run on its own; install busybox-static`, { cause: error })
  })
  writeFileSync(join(directory, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\n')
  writeFileSync(join(directory, 'etc/group'), 'root:x:0:\n')
  writeFileSync(join(directory, 'www/index.html'), 'It works!\n')
}
