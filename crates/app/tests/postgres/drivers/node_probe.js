// What programs do with node-postgres, each thing once; says which thing did not go as it should.
'use strict';

const assert = require('assert');
const { Client, Pool } = require('pg');

const [host, port, user, database] = process.argv.slice(2);
const login = { host, port: Number(port), user, database, connectionTimeoutMillis: 20000 };

async function connected(more = {}) {
  const client = new Client({ ...login, ...more });
  await client.connect();
  return client;
}

const things = {
  async queries() {
    const client = await connected();
    assert.strictEqual((await client.query('select 6 * 7 as n')).rows[0].n, 42);
    assert.strictEqual((await client.query('select $1::int + $2 as n', [1, 2])).rows[0].n, 3);
    assert.deepStrictEqual((await client.query('select $1::text as a, null as b', ['ä€😀'])).rows, [{ a: 'ä€😀', b: null }]);
    assert.strictEqual((await client.query('select n, t from numbers')).rowCount, 1000);
    assert.strictEqual((await client.query('select 1; select 2')).length, 2);
    await client.end();
  },

  async prepared() {
    const [one, other] = [await connected(), await connected()];
    for (let turn = 0; turn < 30; turn++) {
      const first = await one.query({ name: 'same', text: 'select $1::int * 2 as n', values: [turn] });
      const second = await other.query({ name: 'same', text: "select $1::text || 'x' as t", values: [String(turn)] });
      assert.strictEqual(first.rows[0].n, turn * 2);
      assert.strictEqual(second.rows[0].t, `${turn}x`);
    }
    await one.end();
    await other.end();
  },

  async errors() {
    const client = await connected();
    for (let turn = 0; turn < 3; turn++) {
      await assert.rejects(client.query('select 1/0'), { code: '22012' });
      await assert.rejects(client.query('select $1::int', ['x']), { code: '22P02' });
      await assert.rejects(client.query({ name: `bad${turn}`, text: 'selec' }), { code: '42601' });
    }
    assert.strictEqual((await client.query('select 1 as n')).rows[0].n, 1);
    await client.end();
  },

  async queued() {
    const client = await connected();
    const asked = Array.from({ length: 200 }, (_, at) => client.query("select $1::int as n, repeat('x', 3000)", [at]));
    const answers = await Promise.all(asked);
    answers.forEach((answer, at) => assert.strictEqual(answer.rows[0].n, at));
    await client.end();
  },

  async transactions() {
    const client = await connected();
    await client.query('create table node_t (a int primary key)');
    await client.query('begin');
    await client.query('insert into node_t values ($1)', [1]);
    await client.query('savepoint s');
    await assert.rejects(client.query('insert into node_t values ($1)', [1]), { code: '23505' });
    await client.query('rollback to s');
    await client.query('commit');
    await client.query('begin');
    await client.query('insert into node_t values (2)');
    await client.query('rollback');
    assert.strictEqual((await client.query('select count(*)::int as n from node_t')).rows[0].n, 1);
    await client.query('drop table node_t');
    await client.end();
  },

  async notices() {
    const client = await connected();
    const heard = [];
    client.on('notice', (notice) => heard.push(notice.message));
    await client.query("select shout('hear')");
    assert.deepStrictEqual(heard, ['shouted: hear']);
    await client.end();
  },

  async notifications() {
    const [ears, mouth] = [await connected(), await connected()];
    const heard = new Promise((resolve) => {
      const all = [];
      ears.on('notification', (note) => all.push(note.payload) === 2 && resolve(all));
    });
    await ears.query('listen node_n');
    await mouth.query("notify node_n, 'one'");
    await mouth.query("select pg_notify('node_n', 'two')");
    assert.deepStrictEqual(await heard, ['one', 'two']);
    await ears.end();
    await mouth.end();
  },

  async settings() {
    const client = await connected({ application_name: 'probe', statement_timeout: 30000 });
    assert.strictEqual((await client.query('show application_name')).rows[0].application_name, 'probe');
    assert.strictEqual((await client.query('show statement_timeout')).rows[0].statement_timeout, '30s');
    await client.query("set datestyle = 'German'");
    assert.strictEqual((await client.query("select date '2024-02-03'::text as d")).rows[0].d, '03.02.2024');
    await client.end();
  },

  async pools() {
    const pool = new Pool({ ...login, max: 10 });
    const work = async (at) => {
      for (let turn = 0; turn < 20; turn++) {
        const answer = await pool.query('select $1::int * 1000 + $2::int as n', [at, turn]);
        assert.strictEqual(answer.rows[0].n, at * 1000 + turn);
      }
    };
    await Promise.all(Array.from({ length: 20 }, (_, at) => work(at)));
    await pool.end();
  },
};

async function main() {
  for (const [name, thing] of Object.entries(things)) {
    let timer;
    try {
      const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error('stuck')), 60000); });
      await Promise.race([thing(), late]);
      console.log(name, 'well');
    } catch (error) {
      console.log(name, 'failed:', error.code || '', error.message);
    }
    clearTimeout(timer);
  }
  process.exit(0);
}

main();
