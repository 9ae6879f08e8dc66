import { Nft } from '../../../lib/kernel/nft'
test('x', () => {
  const n = new Nft()
  console.log(JSON.stringify(n.run('list tables')))
  expect(() => n.run('list table inet nonexist')).toThrow(/No such file/)
  expect(() => n.run('bla bla {')).toThrow(/syntax/)
  const t = process.hrtime.bigint()
  for (let i = 0; i < 1000; i++) n.run('list tables')
  console.log(Number(process.hrtime.bigint() - t) / 1e9, 'ms each')
  n.close()
  expect(() => n.run('list tables')).toThrow(/closed/)
})
