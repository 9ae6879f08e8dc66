/**
 * `node .ci/prepare.mjs demo|test|vm`: makes a fresh clone ready to run. Says what it does and how long each step took;
 * does nothing, quickly, when nothing is to be done. Needs only Node itself.
 */
import { spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { release } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const purpose = process.argv[2] ?? 'demo'
const verb = { demo: 'npm start', test: 'npm test', vm: 'npm run test:vm' }[purpose]
if (!verb) fail(`node .ci/prepare.mjs demo|test|vm, not ${purpose}`)
process.chdir(root)

const STEPS = 6
let number = 0

/** Runs one step: `body` returns what it found or did, in a few words. */
async function step(what, body) {
  const started = performance.now()
  const label = `[${++number}/${STEPS}] ${what}`
  const begin = doing => process.stdout.write(`${label}: ${doing} ...\n`)
  const result = await body(begin)
  console.log(`${label}: ${result} (${((performance.now() - started) / 1000).toFixed(1)} s)`)
}

function fail(message) {
  console.error(`\n${message}`)
  process.exit(1)
}

/** Runs a command; its output is shown only when it fails. Resolves to whether it succeeded. */
function run(command, args, { env = {}, quiet = false } = {}) {
  return new Promise(resolve => {
    const chunks = []
    const child = spawn(command, args, { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] })
    child.stdout.on('data', chunk => chunks.push(chunk))
    child.stderr.on('data', chunk => chunks.push(chunk))
    child.on('error', error => chunks.push(Buffer.from(`${error.message}\n`)))
    child.on('close', code => {
      if (code !== 0 && !quiet) {
        console.error(`--- ${command} ${args.join(' ')}`)
        console.error(Buffer.concat(chunks).toString().trimEnd().split('\n').slice(-60).join('\n'))
      }
      resolve(code === 0)
    })
  })
}

const onPath = command =>
  (process.env.PATH ?? '').split(':').some(dir => dir && existsSync(join(dir, command)))

/* ---------------------------------------------------------------- the steps */

// linux/capability.h
const CAP_NET_ADMIN = 12n
const CAP_SYS_ADMIN = 21n

function privileges() {
  const status = readFileSync('/proc/self/status', 'utf8')
  const effective = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)/m.exec(status)?.[1] ?? '0'}`)
  const has = bit => ((effective >> bit) & 1n) === 1n
  const inUserNamespace = !/^\s*0\s+0\s+4294967295\s*$/.test(readFileSync('/proc/self/uid_map', 'utf8'))
  return { enough: has(CAP_NET_ADMIN) && has(CAP_SYS_ADMIN), root: process.getuid() === 0, inUserNamespace }
}

function checkSystem() {
  if (process.platform !== 'linux') fail(`libcnm runs on Linux; this is ${process.platform}.`)
  const major = Number(process.versions.node.split('.')[0])
  if (major < 20) fail(`Node 20 or newer is needed; this is ${process.versions.node}.`)
  return `Linux ${release()}, Node ${process.versions.node}`
}

function checkPrivileges() {
  const { enough, inUserNamespace } = privileges()
  if (enough)
    return inUserNamespace ? 'root of a user namespace (nothing can be installed from here)' : 'root'
  const possible = onPath('unshare') && spawnSync('unshare', ['-Urnm', 'true']).status === 0
  const alternatives = [
    `  sudo ${verb}`,
    possible
      ? `  unshare -Urnm ${verb}     (a user namespace: no root needed. It has no way to the network: \`npm ci\` first)`
      : '  (a user namespace would do as well, but this kernel or its settings do not allow one)',
  ]
  if (purpose === 'test')
    alternatives.push(
      '  npx jest --selectProjects unit     (the tests that need no privilege; `npm ci` first)',
    )
  return fail(
    [
      'Network namespaces, links and firewall rules need root, or CAP_NET_ADMIN and CAP_SYS_ADMIN.',
      'Everything is done inside private namespaces; the network of this machine is not touched. Choose one:',
      ...alternatives,
    ].join('\n'),
  )
}

/**
 * Names in the lists of this purpose: one package per line, `#` begins a comment. `NAME unless COMMAND`: not where the
 * command is there already, from wherever.
 */
function wantedPackages() {
  const lists = {
    demo: ['packages'],
    test: ['packages', 'packages.test'],
    vm: ['packages', 'packages.test', 'packages.vm'],
  }
  return lists[purpose].flatMap(name => {
    const path = join('.ci', name)
    if (!existsSync(path)) return []
    return readFileSync(path, 'utf8')
      .split('\n')
      .map(line => line.replace(/#.*/, '').trim())
      .filter(Boolean)
      .flatMap(line => {
        const [name, , command] = line.split(/\s+/)
        return command && onPath(command) ? [] : [name]
      })
  })
}

function missingPackages(names) {
  const { stdout } = spawnSync('dpkg-query', ['-W', '-f', `\${Package} \${db:Status-Abbrev}\n`, ...names], {
    encoding: 'utf8',
  })
  const installed = new Set(
    stdout
      .split('\n')
      .filter(line => / [ih]i/.test(line))
      .map(line => line.split(' ')[0]),
  )
  return names.filter(name => !installed.has(name))
}

async function installPackages(begin) {
  const names = [...new Set(wantedPackages())]
  for (const [command, name] of [
    ['gcc', 'gcc'],
    ['g++', 'g++'],
    ['make', 'make'],
    ['python3', 'python3'],
  ])
    if (!onPath(command)) names.push(name)
  if (!onPath('dpkg-query'))
    return `this is no Debian: please see to it that there is what these are there: ${names.join(' ')}`
  const missing = missingPackages(names)
  if (missing.length === 0) return `${names.length} there`
  const { root, inUserNamespace } = privileges()
  if (!root || inUserNamespace)
    fail(
      `These Debian packages are missing and only root can install them:\n  sudo apt-get install --no-install-recommends ${missing.join(' ')}`,
    )
  begin(`installing ${missing.join(' ')}`)
  await withoutServices(missing, async () => {
    const env = { DEBIAN_FRONTEND: 'noninteractive' }
    const install = quiet =>
      run(
        'apt-get',
        [
          'install',
          '-y',
          '-q',
          '--no-install-recommends',
          '-o',
          'Acquire::Retries=3',
          '-o',
          'DPkg::Lock::Timeout=120',
          ...missing,
        ],
        { env, quiet },
      )
    const lists = existsSync('/var/lib/apt/lists') ? readdirSync('/var/lib/apt/lists') : []
    if (lists.some(name => /_Packages/.test(name)) && (await install(true))) return
    for (let attempt = 1; attempt <= 3; attempt++) {
      const updated = await run('apt-get', ['update', '-q', '-o', 'Acquire::Retries=3'], { env })
      if (updated && (await install(attempt < 3))) return
    }
    fail('apt-get could not install them; see above.')
  })
  return `installed ${missing.length}: ${missing.join(' ')}`
}

const POLICY = '/usr/sbin/policy-rc.d'

/** Packages that bring a daemon must not start it on this machine, now or at the next boot. */
async function withoutServices(names, body) {
  const mine = !existsSync(POLICY)
  const restore = () => mine && rmSync(POLICY, { force: true })
  if (mine) {
    writeFileSync(POLICY, '#!/bin/sh\nexit 101\n', { mode: 0o755 })
    process.on('exit', restore)
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.once(signal, () => process.exit(1))
  }
  await body()
  restore()
  if (!existsSync('/run/systemd/system')) return
  const units = names.flatMap(name =>
    spawnSync('dpkg', ['-L', name], { encoding: 'utf8' })
      .stdout.split('\n')
      .filter(path => /\/systemd\/system\/[^/@]+\.(service|socket)$/.test(path))
      .map(path => path.split('/').at(-1)),
  )
  if (units.length > 0) await run('systemctl', ['disable', ...units], { quiet: true })
}

const STAMP = 'node_modules/.libcnm-stamp'
const BUILT_BY_INSTALL = ['ffi-napi', 'ref-napi', '@2060.io/ref-napi']

async function installModules(begin) {
  const lock = createHash('sha256').update(readFileSync('package-lock.json')).digest('hex')
  const stamp = `${lock} ${process.versions.modules} ${process.arch}\n`
  const found = existsSync(STAMP) ? readFileSync(STAMP, 'utf8') : undefined
  let done = 'there'
  if (found !== stamp) {
    const byHand = 'node_modules/.package-lock.json' // npm install leaves it
    const otherNode = found !== undefined && found.split(' ')[1] !== process.versions.modules
    const fresh = existsSync(byHand) && !otherNode && newest([byHand]) >= newest(['package-lock.json'])
    if (!fresh) {
      if (!hasWayOut())
        fail(
          `The npm packages are not installed yet, and this network namespace has no way to the registry.\nOutside, as yourself: npm ci\nThen the same command as now.`,
        )
      begin('npm ci, which also compiles ffi-napi, ref-napi and the addon: about a minute')
      if (!(await npm('ci', '--no-audit', '--no-fund'))) fail('npm ci failed; see above.')
      done = 'installed'
    }
  }
  const unbuilt = BUILT_BY_INSTALL.filter(name => existsSync(`node_modules/${name}`) && !isBuilt(name))
  if (unbuilt.length > 0) {
    begin(`compiling ${unbuilt.join(', ')}`)
    if (!(await npm('rebuild', '--no-audit', ...unbuilt))) fail('npm rebuild failed; see above.')
    done = 'installed'
  }
  if (found !== stamp) writeFileSync(STAMP, stamp)
  return done
}

/** Whether there is any default route, IPv4 or IPv6; npm would try for minutes. */
function hasWayOut() {
  const lines = path => (existsSync(path) ? readFileSync(path, 'utf8').split('\n') : [])
  return (
    lines('/proc/net/route').some(line => line.split(/\s+/)[1] === '00000000') ||
    lines('/proc/net/ipv6_route').some(line => /^0{32} 00 .* (?!lo$)\S+$/.test(line.trim()))
  )
}

function isBuilt(name) {
  const release = `node_modules/${name}/build/Release`
  return existsSync(release) && readdirSync(release).some(file => file.endsWith('.node'))
}

/** node-gyp asks the network for the headers unless it is told where they are. */
function npm(...args) {
  const prefix = dirname(dirname(process.execPath))
  const here = existsSync(join(prefix, 'include/node/node_api.h'))
  const env = here && !process.env.npm_config_nodedir ? { npm_config_nodedir: prefix } : {}
  return run('npm', args, { env: { npm_config_yes: 'true', ...env } })
}

/** Latest modification among files and, below directories, everything with one of the endings. Milliseconds. */
function newest(paths, endings) {
  let latest = 0
  for (const path of paths) {
    const stat = statSync(path, { throwIfNoEntry: false })
    if (!stat) continue
    if (stat.isDirectory()) {
      const below = readdirSync(path, { withFileTypes: true })
        .filter(entry => entry.isDirectory() || endings.some(ending => entry.name.endsWith(ending)))
        .map(entry => join(path, entry.name))
      // the directory itself too: something may have been deleted
      latest = Math.max(latest, stat.mtimeMs, newest(below, endings))
    } else latest = Math.max(latest, stat.mtimeMs)
  }
  return latest
}

async function buildNative(begin) {
  const sources = readdirSync('native')
    .filter(name => /\.(c|h|gyp)$/.test(name))
    .map(name => join('native', name))
  if (newest(['native/build/Release/cnm.node']) >= newest(sources)) return 'there'
  begin('compiling')
  if (!(await npm('run', 'install'))) fail('The addon does not compile; see above.')
  return 'built'
}

async function buildLibrary(begin) {
  const stamp = 'dist/.stamp'
  const sources = [
    'lib',
    'drivers',
    'examples',
    'test/bench',
    'tsconfig.json',
    'tsconfig.build.json',
    'package.json',
  ]
  if (newest([stamp]) > newest(sources, ['.ts', '.json'])) return 'there'
  begin('compiling')
  const begun = new Date()
  rmSync('dist', { recursive: true, force: true })
  if (!(await npm('run', '--silent', 'build'))) fail('The library does not compile; see above.')
  writeFileSync(stamp, `${begun.toISOString()}\n`)
  return 'built'
}

await step('system', checkSystem)
await step('privileges', checkPrivileges)
await step('Debian packages', installPackages)
await step('npm packages', installModules)
await step('native addon', buildNative)
await step('library', buildLibrary)
