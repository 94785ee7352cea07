// What a program says to swarmd, whatever it is written in: greeting, frames, signed messages.
// The other side of it: protocol/frames.py, digest.py, envelope.py, codec.py, node/mesh/greet.py.
import './polyfill.mjs'
import { createHash, randomBytes } from 'node:crypto'
import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { circuitRelayTransport } from '@libp2p/circuit-relay-v2'
import { generateKeyPairFromSeed, publicKeyFromRaw } from '@libp2p/crypto/keys'
import { identify } from '@libp2p/identify'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { decode, encode } from '@msgpack/msgpack'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'

export const PROTOCOL = '/swarmd'
export const CALLS = '/swarmd/call'
export const ZEROS = Buffer.alloc(32)
const AGENT = 'js-libp2p/swarmd-interop'
const VERSION = 2
const FRAME_BYTES = 1 << 20

/** A key and its libp2p node: TCP, Noise, Yamux, circuits. `seed` is 32 secret bytes. */
export async function createNode (seed = randomBytes(32), { listen = [], announce = [], services = {} } = {}) {
  const key = await generateKeyPairFromSeed('Ed25519', seed)
  const node = await createLibp2p({
    privateKey: key,
    addresses: { listen, announce },
    transports: [tcp(), circuitRelayTransport()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    services: { identify: identify(), ping: ping(), ...services }
  })
  return { key, node }
}

/** SHA-256 over a domain and typed parts, each bytes or text. */
export function digest (domain, ...parts) {
  const hash = createHash('sha256').update('swarmd/1/').update(sized(domain, 2))
  for (const part of parts) hash.update(typeof part === 'string' ? 's' : 'b').update(sized(part, 8))
  return hash.digest()
}

/** `part` behind its length, a big-endian integer of `width` bytes. */
function sized (part, width) {
  const data = Buffer.concat([Buffer.alloc(width), Buffer.from(part)])
  data.writeUIntBE(data.length - width, Math.max(0, width - 6), Math.min(width, 6))
  return data
}

/** `message` signed with `key`: an envelope (signer, body, signature). */
export async function seal (key, message) {
  const signer = key.publicKey.raw
  const body = encode(message)
  return [signer, body, await key.sign(digest('signed', signer, body))]
}

/** What names a signed message: its author and its exact bytes. */
export const nameOf = ([signer, body]) => digest('message', signer, body)

/** The message in an envelope, if `peer` signed it. */
async function open (envelope, peer) {
  const [signer, body, signature] = envelope
  if (!same(signer, peer)) throw new Error('it passes on a message of another peer')
  if (!await publicKeyFromRaw(signer).verify(digest('signed', signer, body), signature)) {
    throw new Error('its signature is wrong')
  }
  return exact(body)
}

/** What `data` encodes. There is one encoding of each value, and this has to be it. */
function exact (data) {
  const value = decode(data)
  if (!same(encode(value), data)) throw new Error('this is not the one encoding of its value')
  return value
}

export const same = (one, other) => Buffer.compare(one, other) === 0

/** From where a peer is seen: what a NAT makes of its socket. */
const socketOf = address => String(address).replace(/\/p2p\/.*/, '')

/** A stream of protocol /swarmd to one peer, once both have said hello on it. */
export class Link {
  /** Greet on a fresh stream: of two peers the one with the larger key speaks first. */
  static async greet (node, stream, connection, swarm) {
    const link = new Link(stream, connection.remotePeer)
    const own = node.peerId.publicKey.raw
    const seen = connection.limits || connection.direction === 'outbound' ? '' : socketOf(connection.remoteAddr)
    const hello = encode(['hello', VERSION, VERSION, swarm, AGENT, randomBytes(16), seen])
    const first = Buffer.compare(own, link.peer) > 0
    if (first) await link.#write(hello)
    const [tag, ...said] = decode(await link.#frame()) // later versions may append fields
    if (tag !== 'hello') throw new Error(`turned away: ${said[0]}: ${said[1]}`)
    const [oldest, newest, theirs, agent] = said
    if (oldest > VERSION || newest < VERSION || theirs !== swarm) {
      const why = `this is version ${VERSION} in swarm ${swarm}, the peer speaks ${oldest} to ${newest} in ${theirs}`
      await link.#write(encode(['goodbye', theirs === swarm ? 'version-mismatch' : 'wrong-swarm', why]))
      throw new Error(`not greeted: ${why}`)
    }
    if (!first) await link.#write(hello)
    return Object.assign(link, { agent, first })
  }

  constructor (stream, peerId) {
    this.peerId = peerId
    this.peer = peerId.publicKey.raw
    this.stream = stream
    this.frames = framesOf(stream)
  }

  /** Send an envelope. */
  send (envelope) {
    return this.#write(encode(envelope))
  }

  /** The next verified message and its envelope: `{ message, envelope, name }`. */
  async next () {
    const envelope = exact(await this.#frame())
    return { message: await open(envelope, this.peer), envelope, name: nameOf(envelope) }
  }

  async #frame () {
    const { value, done } = await this.frames.next()
    if (done) throw new Error('the peer closed the stream')
    return value
  }

  async #write (payload) {
    if (!this.stream.send(sized(payload, 4))) await this.stream.onDrain()
  }
}

/** A frame is a four-byte big-endian length and that many bytes. */
async function * framesOf (stream) {
  let held = Buffer.alloc(0)
  for await (const chunk of stream) {
    held = Buffer.concat([held, chunk.subarray()])
    while (held.length >= 4) {
      const end = 4 + held.readUInt32BE(0)
      if (end > 4 + FRAME_BYTES) throw new Error(`a frame declares ${end - 4} bytes`)
      if (held.length < end) break
      yield held.subarray(4, end)
      held = held.subarray(end)
    }
  }
}

/** Answer the calls that come on `stream`: `answers` has a function from body to body by method. */
export async function serveCalls (stream, answers) {
  for await (const frame of framesOf(stream)) {
    const [, id, method, , body] = exact(frame)
    const reply = answers[method] ? ['reply', id, answers[method](body)] : ['failed', id, 'mesh', 'no such method']
    if (!stream.send(sized(encode(reply), 4))) await stream.onDrain()
  }
}

/** Dial `address` (ending in /p2p/ID, through a relay or not) and greet. */
export async function connect (node, address, swarm) {
  const connection = await node.dial(multiaddr(address))
  const stream = await connection.newStream(PROTOCOL, { runOnLimitedConnection: true })
  return Link.greet(node, stream, connection, swarm)
}

/** The command line as `{ flags, rest }`: `--name=value` and what is left. */
export function commandLine () {
  const flags = {}
  const rest = process.argv.slice(2).filter(word => {
    const [, name, value] = /^--([a-z]+)(?:=(.*))?$/s.exec(word) ?? []
    if (name) flags[name] = value ?? true
    return !name
  })
  if (flags.seed) flags.seed = Buffer.from(flags.seed, 'hex')
  return { flags, rest }
}
