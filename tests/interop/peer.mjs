// A peer that is no swarmd: it listens, greets, states where it is, answers identify and ping, and
// may be a relay. It keeps no log, and takes part in no round. It prints what happens as JSON, a
// line each, and ends with its standard input.
//
//   node peer.mjs [--swarm=NAME] [--seed=HEX] [--listen=MULTIADDR] [--relay]    listens
//   node peer.mjs [--swarm=NAME] [--seed=HEX] ADDRESS      dials, greets, identifies, pings, ends
import { circuitRelayServer } from '@libp2p/circuit-relay-v2'
import { encode } from '@msgpack/msgpack'
import { CALLS, Link, PROTOCOL, ZEROS, commandLine, connect, createNode, seal, serveCalls } from './swarmd.mjs'

const { flags, rest: [address] } = commandLine()
const swarm = flags.swarm ?? 'public'
const { key, node } = await createNode(flags.seed, {
  listen: address ? [] : [flags.listen ?? '/ip4/127.0.0.1/tcp/0'],
  announce: flags.listen ? [flags.listen] : [], // it would not tell a public address by itself
  services: flags.relay ? { relay: circuitRelayServer() } : {}
})
const say = (event, what) => console.log(JSON.stringify({ event, ...what }))

const greeted = link => say('greeted', { peer: String(link.peerId), agent: link.agent, first: link.first })

await node.handle(PROTOCOL, async (stream, connection) => {
  try {
    const link = await Link.greet(node, stream, connection, swarm)
    greeted(link)
    for (;;) await link.next()
  } catch (error) {
    say('ended', { peer: String(connection.remotePeer), reason: error.message })
  }
}, { runOnLimitedConnection: true })

// What this peer states of itself, which is how others learn that it is a relay.
const began = Date.now()
async function presence () {
  const addresses = node.getMultiaddrs().map(String).slice(0, 12)
  const now = Math.floor(Date.now() / 1000)
  return encode(await seal(key, ['presence', swarm, began, 0, now, addresses, !!flags.relay, 'public']))
}
const own = await presence()
await node.handle(CALLS, async (stream, connection) => {
  try {
    await serveCalls(stream, { exchange: () => encode([own, ZEROS, [], Date.now()]), state: () => new Uint8Array() })
  } catch (error) {
    say('failed', { peer: String(connection.remotePeer), reason: error.message })
  }
}, { runOnLimitedConnection: true })

if (address) {
  const link = await connect(node, address, swarm)
  greeted(link)
  const [connection] = node.getConnections(link.peerId)
  const { agentVersion, protocols, observedAddr } = await node.services.identify.identify(connection)
  say('identified', { agent: agentVersion, protocols, observed: String(observedAddr) })
  say('pinged', { rtt_ms: await node.services.ping.ping(link.peerId) })
  await node.stop()
} else {
  node.addEventListener('peer:identify', ({ detail }) => {
    say('identified', { peer: String(detail.peerId), agent: detail.agentVersion, protocols: detail.protocols })
  })
  say('ready', { peer: String(node.peerId), addresses: node.getMultiaddrs().map(String) })
  process.stdin.resume().on('end', async () => { await node.stop() })
}
