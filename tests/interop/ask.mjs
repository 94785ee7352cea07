// Ask a swarm a question, as any peer may: node ask.mjs [--swarm=NAME] QUESTION ADDRESS...
// Prints the answers, what the judges made of them and whom they prefer, as JSON. It speaks the
// round of docs/round.md with one stage and one wave, as up to nine answerers judge.
import { randomBytes } from 'node:crypto'
import { ZEROS, commandLine, connect, createNode, digest, nameOf, same, seal } from './swarmd.mjs'

const PHASE_MS = 15_000
const MICRO = 1_000_000
const { flags, rest: [question, ...addresses] } = commandLine()
if (!question || addresses.length < 1 || addresses.length > 9) throw new Error('a question and 1 to 9 addresses')
const swarm = flags.swarm ?? 'public'
const { key, node } = await createNode(flags.seed)
const missing = {}

/** Take a `step` with all seats at once and keep what it gives; who fails has no further part. */
async function each (seats, kind, step) {
  const done = await Promise.allSettled(seats.map(seat => inTime(step(seat))))
  return seats.filter((seat, at) => {
    const { status, value, reason } = done[at]
    if (status === 'fulfilled') seat[kind] = value
    else missing[seat.id] = reason.message
    return status === 'fulfilled'
  })
}

function inTime (promise) {
  let timer
  const late = new Promise((resolve, reject) => { timer = setTimeout(reject, PHASE_MS, new Error('nothing came in time')) })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

/** Send `envelope`; the reply of type `kind` to it. */
async function exchange (seat, envelope, kind) {
  await seat.link.send(envelope)
  for (;;) {
    const reply = await seat.link.next()
    const { type, round: of, reason, detail } = reply.message
    if (!of || !same(of, round)) continue // of another round
    need(type !== 'decline', `declined: ${reason}: ${detail}`)
    need(type === kind, `a ${type} instead of a ${kind}`)
    return reply
  }
}

function need (holds, otherwise) {
  if (!holds) throw new Error(otherwise)
}

let seats = addresses.map(address => ({ id: address.split('/p2p/').at(-1), address }))
seats = await each(seats, 'link', seat => connect(node, seat.address, swarm))

// Invite, Commit: every answer is fixed before any is shown.
const secret = randomBytes(32)
const invite = await seal(key, {
  type: 'invite',
  version: 1,
  swarm,
  nonce: randomBytes(32),
  question,
  answer_bytes: 16 << 10,
  answer_tokens: 512,
  phases: [PHASE_MS, PHASE_MS, PHASE_MS],
  secret_hash: digest('secret', secret)
})
const round = nameOf(invite)
const fixed = await each(seats, 'commit', seat => exchange(seat, invite, 'commit'))
fixed.sort((one, other) => Buffer.compare(one.link.peer, other.link.peer))

// Roster, Reveal.
const rosterEntries = fixed.map(seat => [seat.link.peer, seat.commit.name])
const roster = await seal(key, { type: 'roster', round, stage: 0, previous: ZEROS, entries: rosterEntries })
seats = await each(fixed, 'reveal', async seat => {
  const reply = await exchange(seat, roster, 'reveal')
  const { roster: under, salt, answer } = reply.message
  const opened = digest('commit', round, seat.link.peer, salt, digest('answer', answer))
  need(same(under, nameOf(roster)), 'its Reveal is for another Roster')
  need(same(opened, seat.commit.message.commitment), 'its Reveal does not open its Commit')
  return reply
})

// Classes of equal answers, by the rules of swarm/answers.py for plain words and whole numbers. If
// the judges see other classes, their Ballots are on other pairs, and are not taken.
const classes = new Map()
for (const seat of seats) {
  const text = seat.reveal.message.answer.normalize('NFKC').trim().replace(/\s+/g, ' ')
  const plain = text.replace(/\.+$/, '').toLowerCase()
  classes.set(plain, [...classes.get(plain) ?? [], seat])
}
const found = [...classes.values()].map(members => ({ members, won: 0, judged: 0 }))

// Slate, Ballot, Ack: each judge has every pair in both orders.
let judges = []
const sent = [invite, roster]
if (found.length > 1) {
  const entries = fixed.map(seat => [seat.commit.envelope, seat.reveal?.envelope ?? null])
  const slate = await seal(key, { type: 'slate', round, roster: nameOf(roster), entries, secret })
  sent.push(slate)
  judges = await each(seats, 'ballot', async seat => {
    const reply = await exchange(seat, slate, 'ballot')
    const { slate: on, wave, follows, rows } = reply.message
    need(same(on, nameOf(slate)) && wave === 0 && same(follows, ZEROS), 'its Ballot is for another Slate')
    const pairs = new Set(rows.map(([first, second]) => `${first} ${second}`))
    need(pairs.size === rows.length && pairs.size === found.length * (found.length - 1) &&
      rows.every(([first, second]) => first !== second && Math.max(first, second) < found.length),
    'its Ballot is on other pairs')
    await seat.link.send(await seal(key, { type: 'ack', round, ballot: reply.name }))
    return reply
  })
  for (const [first, second, p] of judges.flatMap(seat => seat.ballot.message.rows)) {
    for (const [one, share] of p === null ? [] : [[first, p / MICRO], [second, 1 - p / MICRO]]) {
      found[one].won += share
      found[one].judged += 1
    }
  }
  const ballots = digest('ballots', ...judges.map(seat => seat.ballot.name).sort(Buffer.compare))
  sent.push(await seal(key, { type: 'wave-close', round, slate: nameOf(slate), wave: 0, ballots, more: false }))
  await each(seats, 'told', seat => seat.link.send(sent.at(-1)))
}

/** The text that stands for a class: its commonest, of equals the shortest. */
function shown (texts) {
  const times = text => texts.filter(other => other === text).length
  return [...texts].sort((a, b) => times(b) - times(a) || a.length - b.length)[0]
}

// Close. Preferred is who wins most of its comparisons; where nobody judged, the commonest.
const outcome = found.length ? 'answer' : 'partial'
sent.push(await seal(key, { type: 'close', round, outcome, receipt: ZEROS }))
await each(seats, 'told', seat => seat.link.send(sent.at(-1)))
const preferred = one => one.judged ? one.won / one.judged : 0
const order = found.sort((a, b) => preferred(b) - preferred(a) || b.members.length - a.members.length)
const answers = order.map(one => ({
  answer: shown(one.members.map(seat => seat.reveal.message.answer)),
  models: one.members.map(seat => seat.commit.message.model[0]),
  preferred: preferred(one)
}))
const heard = fixed.flatMap(seat => [seat.commit, seat.reveal, seat.ballot]).filter(one => one)
console.log(JSON.stringify({
  outcome,
  winner: answers[0]?.answer ?? null,
  answers,
  ballots: judges.length,
  missing,
  // All that was signed, for whoever wants to check it.
  signed: [...sent, ...heard.map(one => one.envelope)].map(parts => parts.map(part => Buffer.from(part).toString('hex')))
}))
await Promise.all(seats.map(seat => seat.link.stream.close()))
await node.stop()
process.exitCode = found.length ? 0 : 1
