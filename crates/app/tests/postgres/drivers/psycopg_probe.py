"""What programs do with psycopg 3, each thing once; says which thing did not go as it should."""

import sys
import threading
import psycopg
from psycopg.rows import dict_row

HOST, PORT, USER, DATABASE = sys.argv[1:5]
DSN = f"host={HOST} port={PORT} user={USER} dbname={DATABASE} connect_timeout=20"


def connect(**more):
    return psycopg.connect(DSN, **more)


def queries():
    with connect() as conn:
        assert conn.execute("select 6 * 7").fetchone() == (42,)
        assert conn.execute("select %s::int + %s", (1, 2)).fetchone() == (3,)
        row = conn.cursor(row_factory=dict_row).execute("select %s::text as a, null as b", ("ä€😀",)).fetchone()
        assert row == {"a": "ä€😀", "b": None}
        assert conn.cursor(binary=True).execute("select 7::int8, '{1,2}'::int[], now()").fetchone()[1] == [1, 2]
        assert len(conn.execute("select n, t from numbers").fetchall()) == 1000


def prepared():
    with connect() as one, connect() as other:
        one.prepare_threshold = 0
        other.prepare_threshold = 0
        for turn in range(30):
            assert one.execute("select %s::int * 2", (turn,)).fetchone() == (turn * 2,)
            one.commit()
            assert other.execute("select %s::text || 'x'", (str(turn),)).fetchone() == (f"{turn}x",)
            other.commit()
            assert one.execute(f"select {turn} + %s::int", (1,), prepare=True).fetchone() == (turn + 1,)
            one.commit()


def evicted():
    with connect(autocommit=True) as conn:
        conn.prepare_threshold = 0
        conn.prepared_max = 3  # it says DEALLOCATE of what the protocol made
        for turn in range(12):
            assert conn.execute(f"select %s::int + {turn % 6}", (turn,)).fetchone() == (turn + turn % 6,)


def errors():
    with connect() as conn:
        for _ in range(3):
            try:
                conn.execute("select 1/0")
                raise AssertionError("an error was expected")
            except psycopg.errors.DivisionByZero:
                conn.rollback()
        try:
            conn.execute("select nothing_of_that_name")
        except psycopg.errors.UndefinedColumn as error:
            assert error.diag.sqlstate == "42703" and error.diag.statement_position == "8"
        conn.rollback()
        assert conn.execute("select 1").fetchone() == (1,)


def transactions():
    with connect() as conn:
        conn.execute("create table if not exists psycopg_t (a int primary key)")
        conn.commit()
        with conn.transaction():
            conn.execute("insert into psycopg_t values (1)")
            try:
                with conn.transaction():
                    conn.execute("insert into psycopg_t values (1)")
            except psycopg.errors.UniqueViolation:
                pass
            conn.execute("insert into psycopg_t values (2)")
        try:
            with conn.transaction():
                conn.execute("insert into psycopg_t values (3)")
                raise KeyError
        except KeyError:
            pass
        assert conn.execute("select array_agg(a order by a) from psycopg_t").fetchone() == ([1, 2],)
        conn.execute("drop table psycopg_t")


def isolation():
    with connect() as conn:
        conn.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        conn.read_only = True
        assert conn.execute("show transaction_isolation").fetchone() == ("serializable",)
        try:
            conn.execute("create table never (a int)")
        except psycopg.errors.ReadOnlySqlTransaction:
            conn.rollback()


def copies():
    with connect() as conn:
        conn.execute("create table psycopg_c (a int, b text)")
        with conn.cursor().copy("copy psycopg_c from stdin") as copy:
            for at in range(5000):
                copy.write_row((at, "x" * (at % 50)))
        conn.commit()
        with conn.cursor().copy("copy psycopg_c to stdout (format binary)") as copy:
            copy.set_types(["int4", "text"])
            assert sum(row[0] for row in copy.rows()) == sum(range(5000))
        try:
            with conn.cursor().copy("copy psycopg_c from stdin") as copy:
                copy.write_row((1, "x"))
                copy.write("nonsense\n")
        except psycopg.errors.Error:
            conn.rollback()
        assert conn.execute("select count(*) from psycopg_c").fetchone() == (5000,)
        conn.execute("drop table psycopg_c")


def cursors():
    with connect() as conn:
        with conn.cursor("named") as cursor:
            cursor.itersize = 100
            cursor.execute("select n from numbers order by n")
            assert sum(row[0] for row in cursor) == 500500
        with conn.cursor("held", withhold=True, scrollable=True) as cursor:
            cursor.execute("select n from numbers order by n")
            conn.commit()
            cursor.scroll(499)
            assert cursor.fetchone() == (500,)


def pipelines():
    with connect() as conn:
        with conn.pipeline() as pipeline:
            cursors = [conn.execute("select %s::int, repeat('x', 3000)", (at,)) for at in range(200)]
            pipeline.sync()
            assert [cursor.fetchone()[0] for cursor in cursors] == list(range(200))
        conn.commit()
        try:
            with conn.pipeline():
                conn.execute("select 1")
                conn.execute("select 1/0")
                conn.execute("select 2")
            raise AssertionError("an error was expected")
        except psycopg.errors.DivisionByZero:
            conn.rollback()
        with conn.pipeline():
            first = conn.execute("select 'well'")
            with conn.transaction():
                second = conn.execute("select 'and good'")
        assert (first.fetchone(), second.fetchone()) == (("well",), ("and good",))
    with connect(autocommit=True) as conn:
        conn.prepare_threshold = 0
        for _ in range(3):
            with conn.pipeline():
                cursors = [conn.execute("select %s::int", (at,)) for at in range(50)]
            assert [cursor.fetchone()[0] for cursor in cursors] == list(range(50))


def many():
    with connect() as conn:
        conn.execute("create table psycopg_m (a int)")
        with conn.cursor() as cursor:
            cursor.executemany("insert into psycopg_m values (%s) returning a", [(at,) for at in range(500)], returning=True)
            assert cursor.fetchone() == (0,)
        assert conn.execute("select count(*) from psycopg_m").fetchone() == (500,)
        conn.rollback()


def notices():
    heard = []
    with connect() as conn:
        conn.add_notice_handler(lambda diag: heard.append((diag.severity, diag.message_primary)))
        assert conn.execute("select shout('hear')").fetchone() == ("HEAR",)
    assert heard == [("NOTICE", "shouted: hear")], heard


def notifications():
    with connect(autocommit=True) as ears, connect(autocommit=True) as mouth:
        ears.execute("listen psycopg_n")
        mouth.execute("notify psycopg_n, 'one'")
        mouth.execute("select pg_notify('psycopg_n', 'two')")
        heard = []
        for notice in ears.notifies():
            heard.append(notice.payload)
            if len(heard) == 2:
                break
        assert heard == ["one", "two"], heard


def cancels():
    with connect() as conn:
        over = threading.Event()

        def cancel():
            # Before it runs there is nothing to cancel.
            while not over.wait(0.2):
                conn.cancel()

        canceller = threading.Thread(target=cancel)
        canceller.start()
        try:
            conn.execute("select pg_sleep(60)")
            raise AssertionError("a cancel was expected")
        except psycopg.errors.QueryCanceled:
            pass
        finally:
            over.set()
            canceller.join()
        conn.rollback()
        assert conn.execute("select 1").fetchone() == (1,)


def states():
    with connect(autocommit=True) as conn:
        conn.execute("set timezone = 'Asia/Tokyo'")
        assert conn.info.parameter_status("TimeZone") == "Asia/Tokyo"
        assert str(conn.execute("select '2024-01-01 00:00+00'::timestamptz").fetchone()[0].tzinfo) == "Asia/Tokyo"
        conn.execute("create temp table mine as select 5 as a")
        assert conn.execute("select a from mine").fetchone() == (5,)
        assert conn.info.server_version >= 130000 and conn.info.backend_pid > 0


def crowds():
    def work(at):
        with connect() as conn:
            for turn in range(20):
                assert conn.execute("select %s::int, %s::int", (at, turn)).fetchone() == (at, turn)
                conn.commit()
        done.append(at)

    done = []
    threads = [threading.Thread(target=work, args=(at,)) for at in range(20)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert sorted(done) == list(range(20)), done


for thing in [queries, prepared, evicted, errors, transactions, isolation, copies, cursors, pipelines, many,
              notices, notifications, cancels, states, crowds]:
    try:
        thing()
        print(thing.__name__, "well")
    except BaseException as error:  # told, so that one run shows all
        print(thing.__name__, "failed:", type(error).__name__, str(error).strip())
