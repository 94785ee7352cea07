// js-libp2p 3 asks for Node 22; of what Node 20 lacks it needs only this.
Promise.withResolvers ??= function () {
  let resolve, reject
  const promise = new this((...given) => { [resolve, reject] = given })
  return { promise, resolve, reject }
}
