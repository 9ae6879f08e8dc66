/**
 * The network commands of the article behind this project, in its order, by the real docker client against the example
 * runtime, in a host of its own. Prints what is reproduced and what differs.
 */
import { openScene, type Scene } from './scene'

const table: { command: string; result: string }[] = []
let scene: Scene
const docker = (line: string, ...more: string[]) => scene.docker(line, ...more)
const onHost = (line: string) => scene.onHost(line)

/** One command of the article; `differs` says how and why where it is not as shown there. */
const step = (command: string, body: () => Promise<void>, differs?: string) =>
  test(command, async () => {
    table.push({ command, result: 'fails' })
    await body()
    table[table.length - 1] = { command, result: differs ? `differs: ${differs}` : 'reproduced' }
  })

beforeAll(async () => {
  scene = await openScene()
})

afterAll(async () => {
  await scene?.close()
  const width = Math.max(...table.map(({ command }) => command.length))
  process.stdout.write(
    `${table.map(({ command, result }) => `${command.padEnd(width)}  ${result}`).join('\n')}\n`,
  )
})

const BRIDGE_ADDRESS = /inet 172\.17\.0\.\d+\/16/

step('docker network ls', async () => {
  expect(await docker('network ls --format', '{{.Name}} {{.Driver}} {{.Scope}}')).toBe(
    'bridge bridge local\nhost host local\nnone null local\n',
  )
})
step('docker run --network=none busybox ip a', async () => {
  const out = await docker('run --rm --network=none busybox ip a')
  expect(out).toContain('inet 127.0.0.1/8')
  expect(out).not.toContain('eth0')
})
step('docker run --network=host busybox ip a', async () => {
  expect(await docker('run --rm --network=host busybox ip a')).toMatch(
    /inet 192\.168\.61\.10\/24[\s\S]*docker0/,
  )
})
step('docker run busybox ip a; ip route', async () => {
  const out = await docker('run --rm busybox sh -c', 'ip a; ip route')
  expect(out).toMatch(BRIDGE_ADDRESS)
  expect(out).toContain('default via 172.17.0.1 dev eth0')
})
step('docker network inspect bridge | grep bridge.name', async () => {
  expect(await docker('network inspect bridge')).toContain('"com.docker.network.bridge.name": "docker0"')
})
step('docker network create -d bridge localnet', async () => {
  expect(await docker('network create -d bridge localnet')).toMatch(/^[0-9a-f]{64}\n$/)
  const bridges = await onHost('ip link show type bridge')
  expect(bridges).toContain('docker0:')
  expect(bridges).toMatch(/ br-[0-9a-f]{12}:/)
})
step('docker container run -d --name demo1 --network localnet alpine sleep 3600', async () => {
  await docker('container run -d --name demo1 --network localnet alpine sleep 3600')
  expect(await docker('ps --format', '{{.Names}} {{.Image}}')).toContain('demo1 alpine')
})
step('docker exec demo2 ping demo1', async () => {
  await docker('container run -d --name demo2 --network localnet alpine sleep 3600')
  expect(await docker('exec demo2 ping -c1 demo1')).toContain('PING demo1 (172.18.0.2)')
})
step('docker run --name web -d nginx; docker container ls', async () => {
  await docker('run --name web -d nginx')
  expect(await docker('container ls --filter name=web --format', '{{.Ports}}')).toBe('80/tcp\n')
})
step('docker container run -d --name web --expose 22 --expose 20 nginx', async () => {
  await docker('rm -f web')
  await docker('container run -d --name web --expose 22 --expose 20 nginx')
  expect(await docker('ps --filter name=web --format', '{{.Ports}}')).toBe('20/tcp, 22/tcp, 80/tcp\n')
})
step('docker container run -d --name web03 --network localnet -p 5000:80 nginx', async () => {
  await docker('container run -d --name web03 --network localnet -p 5000:80 nginx')
  expect(await docker('port web03')).toBe('80/tcp -> 0.0.0.0:5000\n80/tcp -> [::]:5000\n')
  expect(await onHost('wget -qO- http://192.168.61.10:5000/')).toBe('It works!\n')
})
step('port 5000 is taken', async () => {
  expect(await docker('run --rm -p 5000:80 nginx')).toMatch(/failed: .*5000/)
})
step('docker network connect localnet demo4', async () => {
  await docker('container run -d --name demo4 alpine sleep 3600')
  expect(await docker('exec demo2 ping -c1 -W1 demo4')).toContain("bad address 'demo4'")
  await docker('network connect localnet demo4')
  expect(await docker('exec demo2 ping -c1 demo4')).toContain('1 packets received')
})
step('docker network disconnect localnet demo4', async () => {
  await docker('network disconnect localnet demo4')
  expect(await docker('exec demo2 ping -c1 -W1 demo4')).toContain('bad address')
})
step('docker network rm localnet (in use)', async () => {
  expect(await docker('network rm localnet')).toContain('has active endpoints')
})
step('docker run --net=container:demo1', async () => {
  expect(await docker('run --rm --net=container:demo1 busybox ip a')).toContain('172.18.0.2/16')
})
step('docker network create --driver=bridge --subnet --gateway my-custom-net; run --ip', async () => {
  await docker(
    'network create --driver=bridge --subnet=192.168.100.0/24 --gateway=192.168.100.1 my-custom-net',
  )
  await docker('run -d --network=my-custom-net --ip=192.168.100.10 --name=web1 nginx:alpine')
  expect(
    await docker('inspect -f', '{{(index .NetworkSettings.Networks "my-custom-net").IPAddress}}', 'web1'),
  ).toBe('192.168.100.10\n')
})
step('docker run -p 53:53/tcp -p 53:53/udp; -p IP::PORT; -p IP:PORT:PORT/udp', async () => {
  await docker(
    'run -d --name forms -p 53:53/tcp -p 53:53/udp -p 127.0.0.1::5000 -p 127.0.0.1:5000:5001/udp busybox sleep 99',
  )
  const out = await docker('port forms')
  expect(out).toContain('53/tcp -> 0.0.0.0:53')
  expect(out).toContain('53/udp -> 0.0.0.0:53')
  expect(out).toMatch(/5000\/tcp -> 127\.0\.0\.1:\d+/)
  expect(out).toContain('5001/udp -> 127.0.0.1:5000')
})
step('docker run -d -P; docker run -p 8000-8010:8000-8010', async () => {
  await docker('run -d --name any -P httpd')
  expect(await docker('port any 80')).toMatch(/^0\.0\.0\.0:\d+\n\[::\]:\d+\n$/)
  await docker('run -d --name range -p 8000-8010:8000-8010 busybox sleep 99')
  expect((await docker('port range')).match(/0\.0\.0\.0:80(0\d|10)\n/g)).toHaveLength(11)
})
step('docker network create --opt com.docker.network.driver.mtu=9000 jumbo-net', async () => {
  await docker('network create --opt com.docker.network.driver.mtu=9000 jumbo-net')
  expect(await docker('run --rm --network jumbo-net busybox ip link')).toContain('mtu 9000')
})
step('docker run --link tomcat02; env; cat /etc/hosts', async () => {
  await docker('run -it -d -P --name tomcat02 tomcat')
  await docker('run -it -d -P --name tomcat03 --link tomcat02 tomcat')
  const id = (await docker('inspect -f {{.Id}} tomcat02')).slice(0, 12)
  const address = (await docker('inspect -f {{.NetworkSettings.IPAddress}} tomcat02')).trim()
  const environment = (await docker('exec tomcat03 env')).split('\n')
  expect(environment).toEqual(
    expect.arrayContaining([
      `TOMCAT02_PORT=tcp://${address}:8080`,
      `TOMCAT02_PORT_8080_TCP=tcp://${address}:8080`,
      `TOMCAT02_PORT_8080_TCP_ADDR=${address}`,
      'TOMCAT02_PORT_8080_TCP_PORT=8080',
      'TOMCAT02_PORT_8080_TCP_PROTO=tcp',
      'TOMCAT02_NAME=/tomcat03/tomcat02',
      'TOMCAT02_ENV_JAVA_HOME=/opt/java/openjdk',
      'JAVA_HOME=/opt/java/openjdk',
    ]),
  )
  expect(await docker('exec tomcat03 cat /etc/hosts')).toContain(`\n${address}\ttomcat02 ${id}\n`)
  expect(await docker('exec tomcat03 ping -c1 tomcat02')).toContain('1 packets received')
  expect(await docker('exec tomcat02 ping -c1 -W1 tomcat03')).toContain('failed')
})
step('docker exec demo1 cat /etc/resolv.conf; nslookup', async () => {
  expect(await docker('exec demo1 cat /etc/resolv.conf')).toContain('nameserver 127.0.0.11')
  expect(await docker('exec demo1 nslookup -type=a demo2')).toContain('172.18.0.3')
})
step('docker run -h --dns --dns-search --dns-opt', async () => {
  const out = await docker(
    'run --rm -h here --dns 9.9.9.9 --dns-search example.com --dns-opt ndots:2 busybox cat /etc/hostname /etc/resolv.conf',
  )
  expect(out).toBe('here\nnameserver 9.9.9.9\nsearch example.com\noptions ndots:2\n')
})
step('sysctl net.ipv4.ip_forward', async () => {
  expect(await onHost('sysctl net.ipv4.ip_forward')).toBe('net.ipv4.ip_forward = 1\n')
})
step('docker stop, start, restart, rm', async () => {
  await docker('restart -t 0 web1')
  await docker('stop -t 0 web1')
  await docker('start web1')
  expect(await docker('exec web1 ip a')).toContain('192.168.100.10/24')
  expect(await docker('rm -f web1')).toBe('web1\n')
  expect(await docker('network rm my-custom-net')).toBe('my-custom-net\n')
})
step('docker network prune -f', async () => {
  expect(await docker('network prune -f')).toContain('jumbo-net')
})

step(
  'iptables -t nat -S | grep docker0 (--firewall-backend=iptables)',
  async () => {
    // By default the same is elements of maps in an nftables table of its own.
    expect(await onHost('nft list ruleset')).toMatch(/172\.17\.0\.0\/16|docker0/)
    await scene.reopen({ firewall: 'iptables' })
    await docker('run -d --name first busybox sleep 99')
    await docker('run -d --name centos -p 10086:22 busybox sleep 99')
    const rules = (await onHost('iptables -t nat -S')).split('\n')
    expect(rules).toContain('-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE')
    expect(rules).toContain('-A DOCKER -p tcp -m tcp --dport 10086 -j DNAT --to-destination 172.17.0.3:22')
  },
  'MASQUERADE and DNAT as shown, but without "! -i docker0" and its RETURN: containers reach published ports through the kernel, too',
)
