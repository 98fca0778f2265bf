"""What programs do with asyncpg, each thing once; says which thing did not go as it should."""

import asyncio
import json
import sys
import asyncpg

HOST, PORT, USER, DATABASE = sys.argv[1:5]
LOGIN = dict(host=HOST, port=int(PORT), user=USER, database=DATABASE, ssl=False, timeout=20)


def connect(**more):
    return asyncpg.connect(**LOGIN, **more)


async def queries():
    conn = await connect()
    assert await conn.fetchval("select 6 * 7") == 42
    assert await conn.fetchval("select $1::int + $2", 1, 2) == 3
    assert dict(await conn.fetchrow("select $1::text as a, null as b", "ä€😀")) == {"a": "ä€😀", "b": None}
    assert len(await conn.fetch("select n, t from numbers")) == 1000
    assert await conn.execute("select 1; select 2") == "SELECT 1"
    await conn.close()


async def prepared():
    one, other = await connect(), await connect()
    first, second = await one.prepare("select $1::int * 2"), await other.prepare("select $1::text || 'x'")
    for turn in range(30):
        assert await first.fetchval(turn) == turn * 2
        assert await second.fetchval(str(turn)) == f"{turn}x"
        # The cache of asyncpg names its statements alike in every connection.
        assert await one.fetchval(f"select {turn} + $1::int", 1) == turn + 1
        assert await other.fetchval(f"select {turn} - $1::int", 1) == turn - 1
    await one.close()
    await other.close()


async def evicted():
    conn = await connect(statement_cache_size=3)
    for turn in range(12):
        assert await conn.fetchval(f"select $1::int + {turn % 6}", turn) == turn + turn % 6
    await conn.close()


async def errors():
    conn = await connect()
    for _ in range(3):
        try:
            await conn.fetchval("select 1/0")
            raise AssertionError("an error was expected")
        except asyncpg.DivisionByZeroError:
            pass
        try:
            await conn.fetchval("select $1::int", "x")
        except asyncpg.DataError:
            pass
    assert await conn.fetchval("select 1") == 1
    await conn.close()


async def transactions():
    conn = await connect()
    await conn.execute("create table asyncpg_t (a int primary key)")
    async with conn.transaction():
        await conn.execute("insert into asyncpg_t values (1)")
        try:
            async with conn.transaction():
                await conn.execute("insert into asyncpg_t values ($1)", 1)
        except asyncpg.UniqueViolationError:
            pass
        await conn.execute("insert into asyncpg_t values ($1)", 2)
    try:
        async with conn.transaction(isolation="serializable"):
            assert await conn.fetchval("show transaction_isolation") == "serializable"
            await conn.execute("insert into asyncpg_t values (3)")
            raise KeyError
    except KeyError:
        pass
    assert await conn.fetchval("select array_agg(a order by a) from asyncpg_t") == [1, 2]
    await conn.execute("drop table asyncpg_t")
    await conn.close()


async def cursors():
    conn = await connect()
    async with conn.transaction():
        total = 0
        async for row in conn.cursor("select n from numbers order by n", prefetch=100):
            total += row["n"]
        assert total == 500500
        cursor = await conn.cursor("select n from numbers order by n")
        assert [row["n"] for row in await cursor.fetch(3)] == [1, 2, 3]
        assert (await cursor.fetchrow())["n"] == 4
    await conn.close()


async def copies():
    conn = await connect()
    await conn.execute("create table asyncpg_c (a int, b text)")
    rows = [(at, "x" * (at % 50)) for at in range(5000)]
    assert await conn.copy_records_to_table("asyncpg_c", records=rows) == "COPY 5000"
    pieces = []

    async def take(piece):
        pieces.append(piece)

    assert await conn.copy_from_query("select a from asyncpg_c order by a", output=take) == "COPY 5000"
    assert b"".join(pieces).startswith(b"0\n1\n2\n")
    try:
        await conn.copy_records_to_table("asyncpg_c", records=[("x", 1)])
    except (asyncpg.PostgresError, TypeError, asyncpg.DataError):
        pass
    assert await conn.fetchval("select count(*) from asyncpg_c") == 5000
    await conn.execute("drop table asyncpg_c")
    await conn.close()


async def many():
    conn = await connect()
    await conn.execute("create table asyncpg_m (a int, b text)")
    await conn.executemany("insert into asyncpg_m values ($1, $2)", [(at, "y") for at in range(500)])
    assert await conn.fetchval("select count(*) from asyncpg_m") == 500
    await conn.execute("drop table asyncpg_m")
    await conn.close()


async def types():
    conn = await connect()
    await conn.set_type_codec("json", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
    assert await conn.fetchval("select $1::json", {"a": [1, 2]}) == {"a": [1, 2]}
    await conn.execute("create type asyncpg_pair as (a int, b text)")
    value = await conn.fetchval("select row(1, 'x')::asyncpg_pair")  # it asks the server what that is
    assert tuple(value) == (1, "x")
    await conn.execute("drop type asyncpg_pair")
    await conn.close()


async def notifications():
    ears, mouth = await connect(), await connect()
    heard = asyncio.Queue()
    await ears.add_listener("asyncpg_n", lambda *what: heard.put_nowait(what[3]))
    await mouth.execute("notify asyncpg_n, 'one'")
    await mouth.execute("select pg_notify('asyncpg_n', 'two')")
    assert [await asyncio.wait_for(heard.get(), 20) for _ in range(2)] == ["one", "two"]
    await ears.close()
    await mouth.close()


async def cancels():
    conn = await connect()
    try:
        await conn.fetchval("select pg_sleep(60)", timeout=2)
        raise AssertionError("a timeout was expected")
    except asyncio.TimeoutError:
        pass
    assert await conn.fetchval("select 1") == 1
    await conn.close()


async def settings():
    conn = await connect(server_settings={"application_name": "probe", "jit": "off", "search_path": "public"})
    assert await conn.fetchval("show application_name") == "probe"
    assert await conn.fetchval("show jit") == "off"
    await conn.execute("set timezone = 'Asia/Tokyo'")
    assert conn.get_settings().TimeZone == "Asia/Tokyo"
    await conn.reset()
    assert await conn.fetchval("show application_name") == "probe"
    await conn.close()


async def pools():
    # What a pool sends at each return: unlock all, close all, unlisten, reset all.
    async with asyncpg.create_pool(**LOGIN, min_size=2, max_size=10) as pool:
        async def work(at):
            for turn in range(20):
                async with pool.acquire() as conn:
                    assert await conn.fetchval("select $1::int * 1000 + $2::int", at, turn) == at * 1000 + turn

        await asyncio.gather(*(work(at) for at in range(20)))


async def main():
    for thing in [queries, prepared, evicted, errors, transactions, cursors, copies, many, types, notifications,
                  cancels, settings, pools]:
        try:
            await asyncio.wait_for(thing(), 60)
            print(thing.__name__, "well")
        except BaseException as error:  # told, so that one run shows all
            print(thing.__name__, "failed:", type(error).__name__, str(error).strip())


asyncio.run(main())
