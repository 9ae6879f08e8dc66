/**
 * The network commands of the article behind this project, in its order, by the real docker client against the example
 * runtime, in a host of its own; once for each firewall. Prints what is reproduced and what differs.
 */
import { until } from '../support/underlay'
import { openScene, type Scene } from './scene'

const FIREWALLS = ['nftables', 'iptables'] as const
type Backend = (typeof FIREWALLS)[number]

/** A command of the article, what became of it with each firewall. */
const table = new Map<string, Partial<Record<Backend, string>>>()
let scene: Scene
const docker = (line: string, ...more: string[]) => scene.docker(line, ...more)
const onHost = (line: string) => scene.onHost(line)

afterAll(() => {
  const rows = [...table].map(([command, { nftables = '-', iptables = '-' }]) => [
    command,
    nftables === iptables ? nftables : `${nftables} (nftables); ${iptables} (iptables)`,
  ])
  const width = Math.max(...rows.map(([command = '']) => command.length))
  process.stdout.write(
    `${rows.map(([command = '', result]) => `${command.padEnd(width)}  ${result}`).join('\n')}\n`,
  )
})

const BRIDGE_ADDRESS = /inet 172\.17\.0\.\d+\/16 brd 172\.17\.255\.255 scope global eth0/
const addressOf = async (container: string) =>
  (await docker('inspect -f {{.NetworkSettings.IPAddress}}', container)).trim()

/** What a container serves, once it does: `docker run` returns before its process listens. */
const works = (url: string) =>
  until(async () => (await onHost(`wget -qO- ${url}`)) === 'It works!\n', `${url} is served`)

describe.each(FIREWALLS)('--firewall-backend %s', firewall => {
  /** `differs` says how and why where it is not as shown there. */
  const step = (command: string, body: () => Promise<void>, differs?: string) =>
    test(command, async () => {
      const results = table.get(command) ?? {}
      table.set(command, results)
      results[firewall] = 'fails'
      await body()
      results[firewall] = differs ? `differs: ${differs}` : 'reproduced'
    })

  beforeAll(async () => {
    scene = await openScene({ firewall })
  })
  afterAll(() => scene?.close())

  step('docker run -it -P --name tomcat01 --net=bridge tomcat; --net=none', async () => {
    await docker('run -itd -P --name tomcat01 --net=bridge tomcat')
    expect(await docker('port tomcat01 8080')).toMatch(/^0\.0\.0\.0:\d+\n\[::\]:\d+\n$/)
    await docker('run -itd -P --name tomcat02 --net=none tomcat')
    expect(await docker('port tomcat02')).toBe('')
    expect(await docker('rm -f tomcat01 tomcat02')).toBe('tomcat01\ntomcat02\n')
  })
  step('docker network create --driver bridge my_bridge; run --network=my_bridge -d nginx', async () => {
    await docker('network create --driver bridge my_bridge')
    const id = (await docker('run --network=my_bridge -d nginx')).trim()
    expect(await docker('network inspect my_bridge')).toContain(`"${id}": {`)
    expect(await docker('rm -f', id)).toBe(`${id}\n`)
    expect(await docker('network rm my_bridge')).toBe('my_bridge\n')
  })
  step('docker network ls', async () => {
    expect(await docker('network ls')).toMatch(
      /^NETWORK ID +NAME +DRIVER +SCOPE\n[0-9a-f]{12} +bridge +bridge +local\n[0-9a-f]{12} +host +host +local\n[0-9a-f]{12} +none +null +local\n$/,
    )
  })
  step('docker network ls -f, --format, --no-trunc, -q; | grep bridge', async () => {
    expect(await docker('network ls -f driver=bridge --format', '{{.Name}} {{.Scope}}')).toBe(
      'bridge local\n',
    )
    const [whole = '', short = ''] = [
      await docker('network ls --no-trunc -q -f name=bridge'),
      await docker('network ls -q -f name=bridge'),
    ]
    expect(whole).toMatch(/^[0-9a-f]{64}\n$/)
    expect(short.trim()).toBe(whole.slice(0, 12))
    expect((await docker('network ls')).split('\n').filter(line => line.includes('bridge'))).toEqual([
      expect.stringMatching(new RegExp(`^${short.trim()} +bridge +bridge +local$`)),
    ])
  })
  step('docker run --network=none busybox ip a', async () => {
    const out = await docker('run --rm --network=none busybox ip a')
    expect(out).toMatch(/^1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536/)
    expect(out).toContain('inet 127.0.0.1/8 scope host lo')
    expect(out).not.toMatch(/^2: /m)
  })
  step('docker run --network=host busybox ip a', async () => {
    const out = await docker('run --rm --network=host busybox ip a')
    expect(out).toContain('inet 192.168.61.10/24')
    expect(out).toMatch(
      /docker0: <NO-CARRIER,BROADCAST,MULTICAST,UP> mtu 1500[\s\S]*inet 172\.17\.0\.1\/16 brd 172\.17\.255\.255 scope global docker0/,
    )
  })
  step('docker run busybox ip a; ip route; on the host ip a', async () => {
    const out = await docker('run --rm busybox sh -c', 'ip a; ip route')
    expect(out).toMatch(/eth0@if\d+: <BROADCAST,MULTICAST,UP,LOWER_UP/)
    expect(out).toMatch(BRIDGE_ADDRESS)
    expect(out).toContain('default via 172.17.0.1 dev eth0')
    expect(out).toMatch(/172\.17\.0\.0\/16 dev eth0 scope link {2}src 172\.17\.0\.2/)
    await docker('run -d --name shown busybox sleep 99')
    expect(await onHost('ip a')).toMatch(/: veth[0-9a-f]+@if\d+: <.*> mtu 1500 .* master docker0 state UP/)
    await docker('rm -f shown')
  })
  step('docker network inspect bridge | grep bridge.name; ip link show docker0', async () => {
    expect(await docker('network inspect bridge')).toContain('"com.docker.network.bridge.name": "docker0"')
    expect(await onHost('ip link show docker0')).toMatch(/docker0: <.*UP.*> mtu 1500/)
  })
  step('docker network create -d bridge localnet; ls; brctl show; ifconfig', async () => {
    const id = (await docker('network create -d bridge localnet')).trim()
    expect(id).toMatch(/^[0-9a-f]{64}$/)
    expect(await docker('network ls')).toMatch(
      new RegExp(`^${id.slice(0, 12)} +localnet +bridge +local$`, 'm'),
    )
    const bridge = `br-${id.slice(0, 12)}`
    // As brctl would show them; Debian has it only in a package of its own. That nobody is on it the kernel works out a moment after the bridge is made.
    await until(async () => {
      const bridges = await onHost('ip -br link show type bridge')
      return ['docker0', bridge].every(name => new RegExp(`^${name} +DOWN`, 'm').test(bridges))
    }, 'both bridges are down')
    expect(await onHost(`ip link show master ${bridge}`)).toBe('')
    const of = (name: string) => onHost(`busybox ifconfig ${name}`)
    expect(await of(bridge)).toMatch(/inet addr:172\.18\.0\.1 +Bcast:172\.18\.255\.255 +Mask:255\.255\.0\.0/)
    expect(await of('docker0')).toMatch(
      /inet addr:172\.17\.0\.1 +Bcast:172\.17\.255\.255 +Mask:255\.255\.0\.0/,
    )
  })
  step('docker container run -d --name demo1 --network localnet alpine sleep 3600; brctl show', async () => {
    await docker('container run -d --name demo1 --network localnet alpine sleep 3600')
    expect(await docker('ps --format', '{{.Names}} {{.Image}}')).toContain('demo1 alpine')
    const id = await docker('network inspect -f {{.Id}} localnet')
    expect(await onHost(`ip -br link show master br-${id.slice(0, 12)}`)).toMatch(/^veth[0-9a-f]+@/)
  })
  step('docker exec demo2 ping demo1', async () => {
    await docker('container run -d --name demo2 --network localnet alpine sleep 3600')
    const out = await docker('exec demo2 ping -c1 demo1')
    expect(out).toContain('PING demo1 (172.18.0.2): 56 data bytes')
    expect(out).toContain('64 bytes from 172.18.0.2: seq=0 ttl=64')
  })
  step('docker run --name web -d nginx; container ls; inspect | grep IPA; telnet 80, 22', async () => {
    await docker('run --name web -d nginx')
    expect(await docker('container ls --filter name=web --format', '{{.Ports}}')).toBe('80/tcp\n')
    const address = await addressOf('web')
    expect(await docker('inspect web')).toContain(`"IPAddress": "${address}"`)
    await works(`http://${address}:80/`)
    expect(await onHost(`busybox telnet ${address} 22`)).toContain('Connection refused')
  })
  step('docker container run -d --name web --expose 22 --expose 20 nginx', async () => {
    await docker('rm -f web')
    await docker('container run -d --name web --expose 22 --expose 20 nginx')
    expect(await docker('ps --filter name=web --format', '{{.Ports}}')).toBe('20/tcp, 22/tcp, 80/tcp\n')
  })
  step('docker container run -d --name web03 --network localnet -p 5000:80 nginx', async () => {
    await docker('container run -d --name web03 --network localnet -p 5000:80 nginx')
    expect(await docker('port web03')).toBe('80/tcp -> 0.0.0.0:5000\n80/tcp -> [::]:5000\n')
    await works('http://192.168.61.10:5000/')
  })
  step('port 5000 is taken', async () => {
    expect(await docker('run --rm -p 5000:80 nginx')).toMatch(
      /Bind for 0\.0\.0\.0:5000 failed: port is already allocated/,
    )
  })
  step('docker network create [OPTIONS]: each of the table', async () => {
    await docker(
      'network create -d bridge --attachable --internal --ipv6 --label team=blue --scope local --opt com.docker.network.bridge.name=br-all --ipam-driver default --ipam-opt a=b --subnet 10.5.0.0/24 --ip-range 10.5.0.128/25 --gateway 10.5.0.1 --aux-address router=10.5.0.2 --subnet fd05::/64 all',
    )
    const [all] = JSON.parse(await docker('network inspect -v all'))
    expect(all).toMatchObject({
      Driver: 'bridge',
      Scope: 'local',
      Attachable: true,
      Internal: true,
      Ingress: false,
      EnableIPv6: true,
      Labels: { team: 'blue' },
      Options: { 'com.docker.network.bridge.name': 'br-all' },
      IPAM: { Driver: 'default', Options: { a: 'b' } },
    })
    expect(all.IPAM.Config[0]).toEqual({
      Subnet: '10.5.0.0/24',
      IPRange: '10.5.0.128/25',
      Gateway: '10.5.0.1',
      AuxiliaryAddresses: { router: '10.5.0.2' },
    })
    expect(await onHost('ip -br address show br-all')).toContain('10.5.0.1/24')
    const inside = await docker('run --rm --network all busybox ip -o address show eth0')
    expect(inside).toMatch(/inet 10\.5\.0\.128\/24/)
    expect(inside).toMatch(/inet6 fd05::/)
    await docker('network create --config-only --subnet 10.6.0.0/24 plan')
    await docker('network create --config-from plan planned')
    expect(await docker('run --rm --network planned busybox ip -o address show eth0')).toContain(
      '10.6.0.2/24',
    )
    expect(await docker('network rm all planned plan')).toBe('all\nplanned\nplan\n')
  })
  step(
    'docker network create --ingress; -d overlay',
    async () => {
      expect(await docker('network create --ingress mesh')).toContain(
        'Ingress network can only be global scope',
      )
      expect(await docker('network create -d overlay wide')).toContain('This node is not a swarm manager')
    },
    'as Docker without a swarm, in its words; across hosts libcnm has overlay and ingress with etcd (test/kernel/api/docker-cluster)',
  )
  step('docker network connect localnet demo4', async () => {
    await docker('container run -d --name demo4 alpine sleep 3600')
    await docker('container run -d --name demo5 --network localnet alpine sleep 3600')
    expect(await docker('exec demo5 ping -c1 -W1 demo4')).toContain("ping: bad address 'demo4'")
    await docker('network connect localnet demo4')
    expect(await docker('exec demo5 ping -c1 demo4')).toContain('1 packets received')
    expect(await docker('exec demo4 ip a')).toMatch(/172\.17\.0\.\d+\/16[\s\S]*172\.18\.0\.\d+\/16/)
  })
  step('docker network disconnect localnet demo4', async () => {
    await docker('network disconnect localnet demo4')
    expect(await docker('exec demo5 ping -c1 -W1 demo4')).toContain('bad address')
    expect(await docker('exec demo4 ip a')).not.toContain('172.18.')
  })
  step('docker network connect --alias --ip --ip6 --link --link-local-ip; disconnect -f', async () => {
    await docker('network create --ipv6 --subnet 10.7.0.0/24 --subnet fd07::/64 six')
    await docker('run -d --name store --network six alpine sleep 3600')
    await docker(
      'network connect --alias api --ip 10.7.0.70 --ip6 fd07::70 --link store:db --link-local-ip 169.254.7.7 six demo4',
    )
    const inside = await docker('exec demo4 ip -o address')
    for (const address of ['10.7.0.70/24', 'fd07::70/64', '169.254.7.7/16']) expect(inside).toContain(address)
    expect(await docker('exec store ping -4 -c1 api')).toContain('PING api (10.7.0.70)')
    expect(await docker('exec demo4 ping -c1 db')).toContain('1 packets received')
    expect(await docker('exec store ping -c1 -W1 db')).toContain("bad address 'db'")
    expect(await docker('network disconnect -f six demo4')).toBe('')
    await docker('rm -f store')
    expect(await docker('network rm six')).toBe('six\n')
  })
  step("docker network inspect -f '{{.IPAM.Config}}'", async () => {
    // How much of a struct is shown differs between clients.
    expect(await docker('network inspect -f', '{{.IPAM.Config}}', 'localnet')).toMatch(
      /^\[\{172\.18\.0\.0\/16 {2}172\.18\.0\.1 map\[\]\}\]\n$/,
    )
  })
  step('docker network rm localnet (in use)', async () => {
    expect(await docker('network rm localnet')).toContain('has active endpoints')
  })
  step('docker run --net=container:demo1', async () => {
    expect(await docker('run --rm --net=container:demo1 busybox ip a')).toContain('172.18.0.2/16')
  })
  step('docker run --network-alias', async () => {
    await docker('run -d --name web04 --network localnet --network-alias shop nginx')
    const asks = 'until wget -qO- http://shop/; do sleep 0.1; done'
    expect(await docker('run --rm --network localnet busybox sh -c', asks)).toContain('It works!\n')
    await docker('rm -f web04')
  })
  step('docker run -p 53:53/tcp -p 53:53/udp; -p IP::PORT; -p IP:PORT:PORT/udp', async () => {
    await docker(
      'run -d --name forms -p 53:53/tcp -p 53:53/udp -p 127.0.0.1::5000 -p 127.0.0.1:5000:5001/udp -p 8080:80 -p 3000:80 httpd',
    )
    const out = await docker('port forms')
    expect(out).toContain('53/tcp -> 0.0.0.0:53')
    expect(out).toContain('53/udp -> 0.0.0.0:53')
    expect(out).toMatch(/5000\/tcp -> 127\.0\.0\.1:\d+/)
    expect(out).toContain('5001/udp -> 127.0.0.1:5000')
    for (const port of [8080, 3000]) await works(`http://192.168.61.10:${port}/`)
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
  step('docker run -d -p 80 nginx; docker port <id> 80; -p 8000-8010:8000-8010', async () => {
    await docker('run -d --name any -p 80 nginx')
    expect(await docker('port any 80')).toMatch(/^0\.0\.0\.0:\d+\n\[::\]:\d+\n$/)
    await docker('run -d --name range -p 8000-8010:8000-8010 busybox sleep 99')
    expect((await docker('port range')).match(/0\.0\.0\.0:80(0\d|10)\n/g)).toHaveLength(11)
    await docker('rm -f range')
  })
  step('docker network inspect --format; nsenter -t $(docker inspect -f …) -n tcpdump -i eth0', async () => {
    expect(await docker('network inspect --format', '{{json .IPAM.Config}}', 'my-custom-net')).toBe(
      '[{"Subnet":"192.168.100.0/24","Gateway":"192.168.100.1"}]\n',
    )
    const pid = (await docker('inspect -f {{.State.Pid}} web1')).trim()
    expect(await onHost(`nsenter -t ${pid} -n ip -br address show eth0`)).toContain('192.168.100.10/24')
    const seen = await scene.tcpdump(`nsenter -t ${pid} -n tcpdump -i eth0 -n icmp`, 2, () =>
      onHost('ping -c1 192.168.100.10'),
    )
    expect(seen).toMatch(/IP 192\.168\.100\.1 > 192\.168\.100\.10: ICMP echo request/)
    expect(seen).toMatch(/IP 192\.168\.100\.10 > 192\.168\.100\.1: ICMP echo reply/)
  })
  step(
    'docker network create --opt com.docker.network.bridge.mtu=9000 jumbo-net',
    async () => {
      await docker('network create --opt com.docker.network.bridge.mtu=9000 jumbo-net')
      expect(await docker('run --rm --network jumbo-net busybox ip link')).toContain('mtu 1500')
      await docker('network create --opt com.docker.network.driver.mtu=9000 jumbo')
      expect(await docker('run --rm --network jumbo busybox ip link')).toContain('mtu 9000')
    },
    'Docker has no such label and ignores it, as we do; com.docker.network.driver.mtu is the one that is meant',
  )
  step(
    'docker run --rm -it --network=bridge --ulimit rtprio=99 --cap-add=sys_nice linuxserver/ffmpeg',
    async () => {
      const out = await docker('run --rm --network=bridge --ulimit rtprio=99 --cap-add=sys_nice busybox ip a')
      expect(out).toMatch(BRIDGE_ADDRESS)
    },
    'neither option limits bandwidth, in Docker or here: the network is as always; createEndpoint({ bandwidth }) does limit it',
  )
  step('docker exec -it container-a ping 172.17.0.3', async () => {
    await docker('run -d --name container-a busybox sleep 99')
    expect(await docker(`exec container-a ping -c1 ${await addressOf('web')}`)).toContain(
      '1 packets received',
    )
  })
  step('docker run --link tomcat02; env; cat /etc/hosts', async () => {
    await docker('run -it -d -P --name tomcat01 tomcat')
    await docker('run -it -d -P --name tomcat02 tomcat')
    expect(await docker('exec tomcat02 ping -c1 -W1 tomcat01')).toContain("bad address 'tomcat01'")
    await docker('run -it -d -P --name tomcat03 --link tomcat02 tomcat')
    const id = (await docker('inspect -f {{.Id}} tomcat02')).slice(0, 12)
    const address = await addressOf('tomcat02')
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
  step('docker network create net; ping; cat /etc/hosts, /etc/resolv.conf; nslookup', async () => {
    await docker('network create net')
    const id = (await docker('run -d -it --name=test1 --network net busybox /bin/sh')).slice(0, 12)
    await docker('run -d -it --name=test2 --network net busybox /bin/sh')
    const [one, two] = (
      await docker('inspect -f {{.NetworkSettings.Networks.net.IPAddress}} test1 test2')
    ).split('\n')
    expect(await docker('exec test1 ping -c1 test2')).toContain(`PING test2 (${two}): 56 data bytes`)
    const hosts = (await docker('exec test1 cat /etc/hosts')).split('\n')
    expect(hosts).toEqual(expect.arrayContaining(['127.0.0.1\tlocalhost', `${one}\t${id}`]))
    expect(hosts.join('\n')).not.toContain('test2')
    const resolv = await docker('exec test1 cat /etc/resolv.conf')
    expect(resolv).toMatch(/^nameserver 127\.0\.0\.11$/m)
    expect(resolv).toMatch(/^options .*ndots:0$/m)
    expect(await docker('exec test1 nslookup -type=a test2')).toMatch(
      new RegExp(
        `Server:\\s+127\\.0\\.0\\.11\\nAddress:\\s+127\\.0\\.0\\.11:53\\n[\\s\\S]*Name:\\s+test2\\nAddress:\\s+${two}\\n`,
      ),
    )
  })
  step('docker run busybox mount | grep etc; cat /etc/resolv.conf, /etc/hostname, /etc/hosts', async () => {
    const mounts = await docker('run --rm busybox mount')
    for (const name of ['resolv.conf', 'hostname', 'hosts'])
      expect(mounts).toContain(` on /etc/${name} type `)
    const out = await docker('run --rm busybox cat /etc/resolv.conf /etc/hostname /etc/hosts')
    const [, id = ''] = /^nameserver 192\.168\.61\.10\n([0-9a-f]{12})\n/.exec(out) ?? []
    expect(out).toMatch(new RegExp(`^172\\.17\\.0\\.\\d+\\t${id}$`, 'm'))
  })
  step('docker run -h --dns --dns-search --dns-opt', async () => {
    const out = await docker(
      'run --rm -h here --dns 9.9.9.9 --dns-search example.com --dns-opt ndots:2 busybox cat /etc/hostname /etc/resolv.conf',
    )
    expect(out).toBe('here\nnameserver 9.9.9.9\nsearch example.com\noptions ndots:2\n')
  })
  step('sysctl net.ipv4.ip_forward; ip r', async () => {
    expect(await onHost('sysctl net.ipv4.ip_forward')).toBe('net.ipv4.ip_forward = 1\n')
    const routes = (await onHost('ip r')).split('\n').map(line => line.trim())
    expect(routes).toContain('172.17.0.0/16 dev docker0 proto kernel scope link src 172.17.0.1')
    expect(routes).toContainEqual(
      expect.stringMatching(
        /^172\.18\.0\.0\/16 dev br-[0-9a-f]{12} proto kernel scope link src 172\.18\.0\.1$/,
      ),
    )
  })
  step('sysctl -w net.ipv4.ip_forward=1', async () => {
    // The router has no way back to 172.17.0.0/16: what it answers was translated.
    const beyond = () => docker('exec container-a ping -c1 -W1 192.168.61.2')
    expect(await onHost('sysctl -w net.ipv4.ip_forward=0')).toBe('net.ipv4.ip_forward = 0\n')
    expect(await beyond()).toContain('100% packet loss')
    expect(await onHost('sysctl -w net.ipv4.ip_forward=1')).toBe('net.ipv4.ip_forward = 1\n')
    expect(await beyond()).toContain('1 packets received')
  })
  step('tcpdump -i docker0 -n icmp; tcpdump -i ens33 -n icmp', async () => {
    const ping = () => docker('exec container-a ping -c1 -W2 192.168.61.2')
    const address = (await addressOf('container-a')).replaceAll('.', '\\.')
    const inside = await scene.tcpdump('tcpdump -i docker0 -n icmp', 2, ping)
    expect(inside).toMatch(new RegExp(`IP ${address} > 192\\.168\\.61\\.2: ICMP echo request`))
    expect(inside).toMatch(new RegExp(`IP 192\\.168\\.61\\.2 > ${address}: ICMP echo reply`))
    const outside = await scene.tcpdump('tcpdump -i ens33 -n icmp', 2, ping)
    expect(outside).toMatch(/IP 192\.168\.61\.10 > 192\.168\.61\.2: ICMP echo request/)
    expect(outside).toMatch(/IP 192\.168\.61\.2 > 192\.168\.61\.10: ICMP echo reply/)
    expect(outside).not.toContain('172.17.')
  })
  step('docker run -d --rm -P httpd; docker ps', async () => {
    const id = (await docker('run -d --rm -P httpd')).trim()
    const ports = await docker(`ps --filter id=${id} --format`, '{{.Ports}}')
    expect(ports).toMatch(/^0\.0\.0\.0:\d+->80\/tcp, (\[::\]|::):\d+->80\/tcp\n$/)
    const [, port] = /0\.0\.0\.0:(\d+)/.exec(ports) ?? []
    await works(`http://192.168.61.10:${port}/`)
    await docker('stop -t 0', id)
    expect(await docker(`ps -aq --filter id=${id}`)).toBe('')
  })
  step('docker run -d --rm -p 80:80 httpd; docker run -d -p 8000-9000:80 httpd', async () => {
    await docker('run -d --rm --name fixed -p 80:80 httpd')
    await docker('run -d --name one -p 8000-9000:80 httpd')
    await docker('run -d --name two -p 8000-9000:80 httpd')
    expect(await docker('port fixed')).toBe('80/tcp -> 0.0.0.0:80\n80/tcp -> [::]:80\n')
    // One port of the range each; 8080 is taken by another container already.
    const ports = ['fixed', 'one', 'two'].map(async name => {
      const [, port = ''] =
        /^80\/tcp -> 0\.0\.0\.0:(\d+)\n80\/tcp -> \[::\]:\1\n$/.exec(await docker('port', name)) ?? []
      await works(`http://192.168.61.10:${port}/`)
      return Number(port)
    })
    const [fixed, one = 0, two = 0] = await Promise.all(ports)
    expect(fixed).toBe(80)
    expect(one).not.toBe(two)
    for (const port of [one, two]) {
      expect(port).toBeGreaterThanOrEqual(8000)
      expect(port).toBeLessThanOrEqual(9000)
    }
    await docker('rm -f fixed one two')
  })
  step(
    'ps -ef | grep docker-proxy',
    async () => {
      await works('http://[::1]:5000/')
      expect(await onHost('ps -ef')).not.toContain('docker-proxy')
    },
    'no process for each port: what the kernel cannot carry, the program itself does',
  )
  step('docker stop, start, restart, rm', async () => {
    await docker('restart -t 0 web1')
    await docker('stop -t 0 web1')
    await docker('start web1')
    expect(await docker('exec web1 ip a')).toContain('192.168.100.10/24')
    expect(await docker('rm -f web1')).toBe('web1\n')
    expect(await docker('network rm my-custom-net')).toBe('my-custom-net\n')
  })
  step('docker network prune -f --filter; docker network rm NETWORK NETWORK', async () => {
    expect(await docker('network prune -f --filter label=none')).toBe('')
    expect(await docker('network prune -f')).toContain('jumbo-net')
    expect(await docker('network create n1')).toMatch(/^[0-9a-f]{64}\n$/)
    expect(await docker('network create n2')).toMatch(/^[0-9a-f]{64}\n$/)
    expect(await docker('network rm n1 n2')).toBe('n1\nn2\n')
    expect(await docker('network ls -q --filter name=localnet')).not.toBe('')
  })
  step(
    'iptables -t nat -S | grep docker0',
    async () => {
      await docker('run -d --name centos -p 10086:22 busybox sleep 99')
      const address = await addressOf('centos')
      if (firewall === 'nftables') {
        const rules = await onHost('nft list ruleset')
        expect(rules).toMatch(new RegExp(`tcp . 10086 : ${address} . 22\\b`))
        expect(rules).toMatch(/set masqueraded [\s\S]*?ipv4 \. "docker0"/)
        return
      }
      const rules = (await onHost('iptables -t nat -S')).split('\n')
      expect(rules).toContain('-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE')
      expect(rules).toContain(`-A DOCKER -p tcp -m tcp --dport 10086 -j DNAT --to-destination ${address}:22`)
    },
    firewall === 'nftables'
      ? 'the same as elements of maps in a table of its own, which nft list ruleset shows'
      : 'as dockerd writes them with --userland-proxy=false: no "! -i docker0" and no RETURN before it, because containers reach published ports through the kernel, too, and not by a proxy',
  )
  step(
    'dockerd --bridge --bip --icc=false --mtu --dns --dns-opt --dns-search --ip-forward --iptables -H',
    async () => {
      const daemon = await openScene({
        firewall,
        predefined: { bridge: 'br-own', bip: '10.77.0.1/24', icc: false },
        mtu: 1400,
        dns: { servers: ['192.168.61.10'], search: ['corp.example'], options: ['ndots:3'] },
      })
      try {
        expect(await daemon.onHost('ip -br address show br-own')).toContain('10.77.0.1/24')
        await daemon.docker('run -d --name one busybox sleep 99')
        const out = await daemon.docker(
          'run --rm busybox sh -c',
          'ip a; cat /etc/resolv.conf; ping -c1 -W1 10.77.0.2',
        )
        expect(out).toMatch(/eth0@.* mtu 1400 [\s\S]*inet 10\.77\.0\.3\/24/)
        expect(out).toContain('nameserver 192.168.61.10\nsearch corp.example\noptions ndots:3\n')
        expect(out).toContain('100% packet loss')
        const own = await daemon.docker('run --rm --dns 9.9.9.9 busybox cat /etc/resolv.conf')
        expect(own).toContain('nameserver 9.9.9.9')
        expect(await daemon.onHost('sysctl net.ipv4.ip_forward')).toContain('= 1')
      } finally {
        await daemon.close()
      }
    },
    'options of the controller, or of cnm serve (test/kernel/api/daemon-options has each, --iptables=false and --ip-forward=false too)',
  )
})
