-- The counters of limits inside of Postgres: tables, and the functions that make each step one round trip.
--
-- The arithmetic is that of `limits/gcra.py`, in 64-bit integers. Every function locks what it needs in one order, the
-- lease before the counters and the counters by name, and reads the server's clock only then, so that no two calls wait
-- for each other in a circle and time never runs backwards on a counter. A counter that does not exist yet is made by a
-- call of its own (code -1 asks for it), because a lock on a row to be cannot be had in order.
--
--     counters     one row a limit: a rate's (tat, rest), a budget's (period, used); of slots only a row to lock
--     slots        one row a request under way; counted while its time is not up
--     leases       what was reserved, and by which set of limits
--     limit_sets   tuples of limits, named by the hash of what they say, so that a request sends 16 bytes
--
-- The arrays of a set are sorted by the counters' names; `places` says where each limit was given (from 1), and states are
-- returned in that order. Kinds: 0 budget per day, 1 per month, 2 in total, 3 rate, 4 slots. Codes: 0 granted, 1 wait,
-- 2 spent, 3 full, 4 never, -1 a counter is missing, -2 no such lease, -3 no such set. Names begin with `a_` (given),
-- `r_` (returned) or `v_`, so that none is taken for a column. A step of migrations.py that was released is not edited:
-- a function changes by a further step with CREATE OR REPLACE.

CREATE TABLE counters (
    counter TEXT COLLATE "C" PRIMARY KEY, kind BIGINT NOT NULL, first BIGINT NOT NULL, second BIGINT NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);

CREATE TABLE limit_sets (
    id BYTEA PRIMARY KEY, seen_us BIGINT NOT NULL, names TEXT[] NOT NULL, places BIGINT[] NOT NULL,
    kinds BIGINT[] NOT NULL, units BIGINT[] NOT NULL, most BIGINT[] NOT NULL, windows BIGINT[] NOT NULL,
    steps BIGINT[] NOT NULL, pers BIGINT[] NOT NULL, body TEXT NOT NULL
);

CREATE TABLE leases (
    id TEXT COLLATE "C" PRIMARY KEY, set_id BYTEA NOT NULL, now_us BIGINT NOT NULL, states BIGINT[] NOT NULL,
    ends_us BIGINT NOT NULL, round BIGINT NOT NULL, reserved BIGINT[] NOT NULL, periods BIGINT[] NOT NULL,
    charged BIGINT[] NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.05);

CREATE TABLE slots (
    counter TEXT COLLATE "C" NOT NULL, lease TEXT COLLATE "C" NOT NULL, ends_us BIGINT NOT NULL,
    PRIMARY KEY (counter, lease)
) WITH (autovacuum_vacuum_scale_factor = 0.05);

CREATE INDEX leases_by_end ON leases (ends_us);

CREATE TABLE counters_claimed (number BIGINT PRIMARY KEY);

-- The server's clock, which no client can turn. Tests replace it, and the next, by ones that they move.
CREATE FUNCTION counters_now_us() RETURNS BIGINT LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN extract(epoch FROM clock_timestamp()) * 1000000;
END
$$;

CREATE FUNCTION counters_wall_us(a_now_us BIGINT) RETURNS BIGINT LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN a_now_us;
END
$$;

CREATE FUNCTION counters_period(a_kind BIGINT, a_wall_us BIGINT) RETURNS BIGINT LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    v_moment TIMESTAMP;
BEGIN
    IF a_kind = 0 THEN
        RETURN floor(a_wall_us / 86400000000.0);
    ELSIF a_kind = 1 THEN
        v_moment := TIMESTAMP '1970-01-01' + a_wall_us * INTERVAL '1 microsecond';
        RETURN 12 * extract(year FROM v_moment) + extract(month FROM v_moment) - 1;
    END IF;
    RETURN 0;
END
$$;

CREATE FUNCTION counters_end(a_kind BIGINT, a_period BIGINT) RETURNS BIGINT LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF a_kind = 0 THEN
        RETURN (a_period + 1) * 86400000000;
    ELSIF a_kind = 1 THEN
        RETURN 1000000 * extract(epoch FROM make_timestamp(
            ((a_period + 1) / 12)::int, ((a_period + 1) % 12 + 1)::int, 1, 0, 0, 0));
    END IF;
    RETURN NULL;
END
$$;

-- Move a rate by a number of units, up or down, however large (`gcra.move`).
CREATE FUNCTION counters_move(
    a_tat BIGINT, a_rest BIGINT, a_units BIGINT, a_step BIGINT, a_per BIGINT, OUT r_tat BIGINT, OUT r_rest BIGINT
) LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    v_whole BIGINT := least(greatest(div(a_units::numeric * a_step, a_per), -2251799813685248), 2251799813685248);
BEGIN
    r_rest := a_rest + mod(a_units::numeric * a_step, a_per);
    IF r_rest < 0 THEN
        v_whole := v_whole - 1;
        r_rest := r_rest + a_per;
    ELSIF r_rest >= a_per THEN
        v_whole := v_whole + 1;
        r_rest := r_rest - a_per;
    END IF;
    r_tat := a_tat + v_whole;
END
$$;

-- Make counters that are missing, unused; a rate's time is then `gcra.LONG_AGO_US`.
CREATE FUNCTION counters_make(a_names TEXT[], a_kinds BIGINT[]) RETURNS VOID LANGUAGE sql AS $$
    INSERT INTO counters (counter, kind, first, second)
        SELECT given.name, given.kind, CASE WHEN given.kind = 3 THEN -4503599627370496 ELSE 0 END, 0
        FROM unnest(a_names, a_kinds) AS given(name, kind) ORDER BY given.name COLLATE "C"
        ON CONFLICT DO NOTHING
$$;

-- Keep a set of limits, or note that it is still in use.
CREATE FUNCTION counters_know(
    a_id BYTEA, a_names TEXT[], a_places BIGINT[], a_kinds BIGINT[], a_units BIGINT[], a_most BIGINT[],
    a_windows BIGINT[], a_steps BIGINT[], a_pers BIGINT[], a_body TEXT
) RETURNS BIGINT LANGUAGE sql AS $$
    INSERT INTO limit_sets (id, seen_us, names, places, kinds, units, most, windows, steps, pers, body)
        VALUES (a_id, counters_now_us(), a_names, a_places, a_kinds, a_units, a_most, a_windows, a_steps, a_pers,
            a_body)
        ON CONFLICT (id) DO UPDATE SET seen_us = excluded.seen_us
        RETURNING seen_us
$$;

-- Charge every limit or none (`gcra.decide`); `a_until_us` is when the lease that asks is over.
CREATE FUNCTION counters_charge(
    a_set limit_sets, a_costs BIGINT[], a_until_us BIGINT,
    OUT r_code BIGINT, OUT r_now_us BIGINT, OUT r_place BIGINT, OUT r_wait_us BIGINT, OUT r_states BIGINT[],
    OUT r_periods BIGINT[]
) LANGUAGE plpgsql AS $$
DECLARE
    v_wall_us BIGINT;
    v_found BIGINT;
    v_firsts BIGINT[];
    v_seconds BIGINT[];
    v_lifted BIGINT[];
    v_total INT := cardinality(a_set.names);
    v_kind BIGINT;
    v_cost BIGINT;
    v_per BIGINT;
    v_step BIGINT;
    v_most BIGINT;
    v_place BIGINT;
    v_one BIGINT;
    v_two BIGINT;
    v_period BIGINT;
    v_wait BIGINT;
    v_waits BOOLEAN;
    v_full_at BIGINT;
BEGIN
    SELECT count(*), coalesce(array_agg(held.first), '{}'), coalesce(array_agg(held.second), '{}')
        INTO v_found, v_firsts, v_seconds
        FROM (SELECT c.first, c.second FROM counters AS c WHERE c.counter = ANY(a_set.names)
              ORDER BY c.counter FOR UPDATE) AS held;
    r_now_us := counters_now_us();
    IF r_now_us >= a_until_us OR v_found < v_total THEN
        r_code := CASE WHEN r_now_us >= a_until_us THEN -2 ELSE -1 END;
        RETURN;
    END IF;
    v_wall_us := counters_wall_us(r_now_us);
    r_code := 0;
    r_states := v_firsts;
    r_periods := v_firsts;
    v_lifted := v_firsts;
    FOR i IN 1 .. v_total LOOP
        v_kind := a_set.kinds[i];
        v_cost := a_costs[a_set.units[i] + 1];
        v_most := a_set.most[i];
        v_place := a_set.places[i];
        v_one := v_firsts[i];
        v_two := v_seconds[i];
        IF v_kind = 3 THEN
            v_per := a_set.pers[i];
            IF v_one < r_now_us THEN
                v_one := r_now_us;
                v_two := 0;
            ELSIF v_two >= v_per THEN
                v_one := v_one + 1;
                v_two := 0;
            END IF;
            v_lifted[v_place] := v_one;
            IF v_cost > 0 THEN
                v_step := a_set.steps[i];
                IF v_cost <= 2251799813685248 / v_step THEN
                    v_two := v_two + v_cost * v_step;
                    v_one := v_one + v_two / v_per;
                    v_two := v_two % v_per;
                ELSE
                    SELECT * INTO v_one, v_two FROM counters_move(v_one, v_two, v_cost, v_step, v_per);
                END IF;
            END IF;
            r_states[v_place] := v_one;
            r_periods[i] := 0;
            v_wait := v_one + (v_two > 0)::int - r_now_us - a_set.windows[i];
            v_waits := v_wait > 0;
        ELSIF v_kind = 4 THEN
            SELECT count(*) INTO v_period FROM slots
                WHERE slots.counter = a_set.names[i] AND slots.ends_us > r_now_us;
            v_lifted[v_place] := v_period;
            r_states[v_place] := v_period + v_cost;
            r_periods[i] := 0;
            v_waits := v_period + v_cost > v_most;
        ELSE
            v_period := counters_period(v_kind, v_wall_us);
            IF v_one < v_period THEN
                v_one := v_period;
                v_two := 0;
            END IF;
            v_lifted[v_place] := v_two;
            v_two := v_two + v_cost;
            r_states[v_place] := v_two;
            r_periods[i] := v_one;
            v_waits := v_two > v_most;
            v_wait := NULL;
            IF v_waits AND v_kind <> 2 THEN
                v_wait := greatest(1, counters_end(v_kind, v_one) - v_wall_us);
            END IF;
        END IF;
        v_firsts[i] := v_one;
        v_seconds[i] := v_two;
        IF v_cost = 0 THEN
            CONTINUE;
        ELSIF v_cost > v_most THEN
            IF r_code <> 4 OR v_place < r_place THEN
                r_code := 4;
                r_place := v_place;
                r_wait_us := NULL;
            END IF;
        ELSIF NOT v_waits OR r_code = 4 THEN
            CONTINUE;
        ELSIF v_kind = 4 THEN
            v_full_at := least(v_full_at, v_place);
        ELSIF r_code = 0 OR r_wait_us < v_wait OR (v_wait IS NULL AND r_wait_us IS NOT NULL)
            OR (r_wait_us IS NOT DISTINCT FROM v_wait AND v_place < r_place) THEN
            r_code := CASE WHEN v_kind = 3 THEN 1 ELSE 2 END;
            r_place := v_place;
            r_wait_us := v_wait;
        END IF;
    END LOOP;
    IF r_code = 0 AND v_full_at IS NOT NULL THEN
        r_code := 3;
        r_place := v_full_at;
        r_wait_us := 1000000;
    END IF;
    IF r_code <> 0 THEN
        r_states := v_lifted;
        RETURN;
    END IF;
    UPDATE counters SET first = moved.first, second = moved.second
        FROM unnest(a_set.names, v_firsts, v_seconds) AS moved(counter, first, second)
        WHERE counters.counter = moved.counter
            AND (counters.first <> moved.first OR counters.second <> moved.second);
END
$$;

CREATE FUNCTION counters_reserve(
    a_lease TEXT, a_lease_us BIGINT, a_set BYTEA, a_costs BIGINT[],
    OUT r_code BIGINT, OUT r_now_us BIGINT, OUT r_place BIGINT, OUT r_wait_us BIGINT, OUT r_states BIGINT[]
) LANGUAGE plpgsql AS $$
DECLARE
    v_set limit_sets;
    v_done RECORD;
BEGIN
    SELECT 0, held.now_us, held.states INTO r_code, r_now_us, r_states FROM leases AS held WHERE held.id = a_lease;
    IF FOUND THEN
        RETURN;
    END IF;
    SELECT * INTO v_set FROM limit_sets WHERE limit_sets.id = a_set;
    IF NOT FOUND THEN
        r_code := -3;
        RETURN;
    END IF;
    SELECT * INTO v_done FROM counters_charge(v_set, a_costs, NULL);
    r_code := v_done.r_code;
    r_now_us := v_done.r_now_us;
    r_place := v_done.r_place;
    r_wait_us := v_done.r_wait_us;
    r_states := v_done.r_states;
    IF r_code <> 0 THEN
        RETURN;
    END IF;
    -- A rival with the same lease fails here, whole; it asks again and is given the answer of the first.
    INSERT INTO leases (id, set_id, now_us, states, ends_us, round, reserved, periods, charged)
        VALUES (a_lease, a_set, r_now_us, r_states, r_now_us + a_lease_us, 0, a_costs, v_done.r_periods,
            ARRAY(SELECT a_costs[given.unit + 1] FROM unnest(v_set.units) WITH ORDINALITY AS given(unit, place)
                  ORDER BY given.place));
    IF a_costs[7] > 0 THEN
        INSERT INTO slots (counter, lease, ends_us)
            SELECT given.name, a_lease, r_now_us + a_lease_us FROM unnest(v_set.names, v_set.kinds) AS given(name, kind)
            WHERE given.kind = 4;
    END IF;
END
$$;

CREATE FUNCTION counters_top_up(
    a_lease TEXT, a_round BIGINT, a_lease_us BIGINT, a_costs BIGINT[],
    OUT r_code BIGINT, OUT r_now_us BIGINT, OUT r_place BIGINT, OUT r_wait_us BIGINT, OUT r_states BIGINT[],
    OUT r_body TEXT
) LANGUAGE plpgsql AS $$
DECLARE
    v_held leases;
    v_set limit_sets;
    v_done RECORD;
    v_costs BIGINT[] := a_costs;
BEGIN
    SELECT * INTO v_held FROM leases WHERE leases.id = a_lease FOR UPDATE;
    IF NOT FOUND THEN
        r_code := -2;
        RETURN;
    END IF;
    SELECT * INTO STRICT v_set FROM limit_sets WHERE limit_sets.id = v_held.set_id;
    v_costs[7] := 0;
    IF a_round <= v_held.round THEN
        v_costs := array_fill(0::bigint, ARRAY[7]);
    END IF;
    SELECT * INTO v_done FROM counters_charge(v_set, v_costs, v_held.ends_us);
    r_code := v_done.r_code;
    r_now_us := v_done.r_now_us;
    r_place := v_done.r_place;
    r_wait_us := v_done.r_wait_us;
    r_states := v_done.r_states;
    r_body := CASE WHEN r_code <> 0 THEN v_set.body END;
    IF r_code <> 0 OR a_round <= v_held.round THEN
        RETURN;
    END IF;
    UPDATE leases SET round = a_round, ends_us = r_now_us + a_lease_us, periods = v_done.r_periods,
        reserved = ARRAY(
            SELECT u.before + u.further
            FROM unnest(v_held.reserved, v_costs) WITH ORDINALITY AS u(before, further, place)
            ORDER BY u.place),
        charged = ARRAY(
            SELECT v_costs[u.unit + 1] + CASE WHEN u.period = u.last THEN u.charged ELSE 0 END
            FROM unnest(v_set.units, v_done.r_periods, v_held.periods, v_held.charged)
                WITH ORDINALITY AS u(unit, period, last, charged, place)
            ORDER BY u.place)
        WHERE leases.id = a_lease;
    UPDATE slots SET ends_us = r_now_us + a_lease_us
        WHERE slots.counter = ANY(v_set.names) AND slots.lease = a_lease;
END
$$;

-- End a lease: move each counter by actual minus reserved, give back the slots (`gcra.settle`, `settle_budget`).
CREATE FUNCTION counters_settle(
    a_lease TEXT, a_actual BIGINT[], OUT r_code BIGINT, OUT r_now_us BIGINT, OUT r_states BIGINT[], OUT r_body TEXT
) LANGUAGE plpgsql AS $$
DECLARE
    v_held leases;
    v_set limit_sets;
    v_found BIGINT;
    v_wall_us BIGINT;
    v_firsts BIGINT[];
    v_seconds BIGINT[];
    v_total INT;
    v_kind BIGINT;
    v_units BIGINT;
    v_one BIGINT;
    v_two BIGINT;
    v_period BIGINT;
BEGIN
    SELECT * INTO v_held FROM leases WHERE leases.id = a_lease FOR UPDATE;
    IF NOT FOUND THEN
        r_code := -2;
        RETURN;
    END IF;
    SELECT * INTO STRICT v_set FROM limit_sets WHERE limit_sets.id = v_held.set_id;
    v_total := cardinality(v_set.names);
    SELECT count(*), coalesce(array_agg(held.first), '{}'), coalesce(array_agg(held.second), '{}')
        INTO v_found, v_firsts, v_seconds
        FROM (SELECT c.first, c.second FROM counters AS c WHERE c.counter = ANY(v_set.names)
              ORDER BY c.counter FOR UPDATE) AS held;
    IF v_found < v_total THEN
        r_code := -1;
        r_body := v_set.body;
        RETURN;
    END IF;
    r_code := 0;
    r_now_us := counters_now_us();
    v_wall_us := counters_wall_us(r_now_us);
    r_states := v_firsts;
    IF v_held.reserved[7] > 0 THEN
        DELETE FROM slots WHERE slots.counter = ANY(v_set.names) AND slots.lease = a_lease;
    END IF;
    DELETE FROM leases WHERE leases.id = a_lease;
    FOR i IN 1 .. v_total LOOP
        v_kind := v_set.kinds[i];
        v_units := a_actual[v_set.units[i] + 1] - v_held.reserved[v_set.units[i] + 1];
        v_one := v_firsts[i];
        v_two := v_seconds[i];
        IF v_kind = 3 THEN
            IF v_one < r_now_us THEN
                v_one := r_now_us;
                v_two := 0;
            ELSIF v_two >= v_set.pers[i] THEN
                v_one := v_one + 1;
                v_two := 0;
            END IF;
            IF v_units <> 0 THEN
                SELECT * INTO v_one, v_two FROM counters_move(v_one, v_two, v_units, v_set.steps[i], v_set.pers[i]);
            END IF;
            r_states[v_set.places[i]] := greatest(v_one, r_now_us);
        ELSIF v_kind = 4 THEN
            SELECT count(*) INTO v_period FROM slots
                WHERE slots.counter = v_set.names[i] AND slots.ends_us > r_now_us;
            r_states[v_set.places[i]] := v_period;
        ELSE
            v_period := counters_period(v_kind, v_wall_us);
            IF v_one < v_period THEN
                v_one := v_period;
                v_two := 0;
            END IF;
            IF v_one = v_held.periods[i] THEN
                v_two := v_two + greatest(v_units, -v_held.charged[i]);
            END IF;
            r_states[v_set.places[i]] := v_two;
        END IF;
        v_firsts[i] := v_one;
        v_seconds[i] := v_two;
    END LOOP;
    UPDATE counters SET first = moved.first, second = moved.second
        FROM unnest(v_set.names, v_firsts, v_seconds) AS moved(counter, first, second)
        WHERE counters.counter = moved.counter
            AND (counters.first <> moved.first OR counters.second <> moved.second);
END
$$;

-- Prolong leases. The counters of their slots are held, so that nobody counts a slot as over that is not.
CREATE FUNCTION counters_renew(a_leases TEXT[], a_lease_us BIGINT) RETURNS VOID LANGUAGE plpgsql AS $$
DECLARE
    v_names TEXT[];
    v_now_us BIGINT;
BEGIN
    SELECT array_agg(DISTINCT one.name) INTO v_names
        FROM (SELECT l.set_id FROM leases AS l WHERE l.id = ANY(a_leases) ORDER BY l.id FOR UPDATE) AS held
        JOIN limit_sets AS s ON s.id = held.set_id, unnest(s.names, s.kinds) AS one(name, kind)
        WHERE one.kind = 4;
    PERFORM FROM counters AS c WHERE c.counter = ANY(v_names) ORDER BY c.counter FOR UPDATE;
    v_now_us := counters_now_us();
    UPDATE slots SET ends_us = v_now_us + a_lease_us
        WHERE slots.counter = ANY(v_names) AND slots.lease = ANY(a_leases) AND slots.ends_us > v_now_us;
    UPDATE leases SET ends_us = v_now_us + a_lease_us
        WHERE leases.id = ANY(a_leases) AND leases.ends_us > v_now_us;
END
$$;

-- End the leases whose time is up. Their slots are not counted since then, so no counter needs to be held. A set of
-- limits is forgotten when nobody has made it known for a week; who uses one makes it known every day.
CREATE FUNCTION counters_expire(OUT r_ended TEXT[]) LANGUAGE plpgsql AS $$
DECLARE
    v_now_us BIGINT := counters_now_us();
    v_wall_us BIGINT := counters_wall_us(v_now_us);
BEGIN
    WITH ended AS (
        DELETE FROM leases WHERE leases.id IN (
            SELECT l.id FROM leases AS l WHERE l.ends_us <= v_now_us ORDER BY l.id FOR UPDATE SKIP LOCKED)
        RETURNING leases.id, leases.set_id
    ), freed AS (
        DELETE FROM slots USING ended, limit_sets AS s
            WHERE s.id = ended.set_id AND slots.counter = ANY(s.names) AND slots.lease = ended.id
    )
    SELECT coalesce(array_agg(ended.id), '{}') INTO r_ended FROM ended;
    -- Forget some of what means nothing any more: a tenth of the pages, so that all are seen in a few dozen calls.
    DELETE FROM counters WHERE counters.counter IN (
        SELECT c.counter FROM counters AS c TABLESAMPLE SYSTEM (10)
        WHERE (c.kind = 3 AND c.first < v_now_us)
            OR (c.kind < 2 AND c.first < counters_period(c.kind, v_wall_us - 172800000000))
            OR (c.kind = 4 AND NOT EXISTS (SELECT FROM slots WHERE slots.counter = c.counter))
        ORDER BY c.counter FOR UPDATE OF c SKIP LOCKED);
    DELETE FROM limit_sets WHERE limit_sets.id IN (
        SELECT s.id FROM limit_sets AS s TABLESAMPLE SYSTEM (1)
        WHERE s.seen_us < v_now_us - 604800000000 AND NOT EXISTS (SELECT FROM leases WHERE leases.set_id = s.id)
        ORDER BY s.id FOR UPDATE OF s SKIP LOCKED);
END
$$;

CREATE FUNCTION counters_levels(
    a_names TEXT[], OUT r_now_us BIGINT, OUT r_wall_us BIGINT, OUT r_firsts BIGINT[], OUT r_seconds BIGINT[],
    OUT r_slots BIGINT[]
) LANGUAGE plpgsql AS $$
BEGIN
    SELECT coalesce(array_agg(c.first ORDER BY given.place), '{}'),
        coalesce(array_agg(c.second ORDER BY given.place), '{}') INTO r_firsts, r_seconds
        FROM unnest(a_names) WITH ORDINALITY AS given(counter, place)
        LEFT JOIN counters AS c ON c.counter = given.counter;
    r_now_us := counters_now_us();
    r_wall_us := counters_wall_us(r_now_us);
    r_slots := ARRAY(
        SELECT (SELECT count(*) FROM slots WHERE slots.counter = given.counter AND slots.ends_us > r_now_us)
        FROM unnest(a_names) WITH ORDINALITY AS given(counter, place) ORDER BY given.place);
END
$$;

-- Add what is left of the past (`gcra.add`) to counters, given in the order of their names.
CREATE FUNCTION counters_add(
    a_names TEXT[], a_kinds BIGINT[], a_pers BIGINT[], a_firsts BIGINT[], a_seconds BIGINT[], OUT r_code BIGINT
) LANGUAGE plpgsql AS $$
DECLARE
    v_now_us BIGINT;
    v_wall_us BIGINT;
    v_found BIGINT;
    v_one BIGINT;
    v_two BIGINT;
    v_firsts BIGINT[];
    v_seconds BIGINT[];
    v_period BIGINT;
BEGIN
    SELECT count(*), coalesce(array_agg(held.first), '{}'), coalesce(array_agg(held.second), '{}')
        INTO v_found, v_firsts, v_seconds
        FROM (SELECT c.first, c.second FROM counters AS c WHERE c.counter = ANY(a_names)
              ORDER BY c.counter FOR UPDATE) AS held;
    r_code := CASE WHEN v_found < cardinality(a_names) THEN -1 ELSE 0 END;
    IF r_code <> 0 THEN
        RETURN;
    END IF;
    v_now_us := counters_now_us();
    v_wall_us := counters_wall_us(v_now_us);
    FOR i IN 1 .. cardinality(a_names) LOOP
        v_one := v_firsts[i];
        v_two := v_seconds[i];
        IF a_kinds[i] = 3 THEN
            IF v_one < v_now_us THEN
                v_one := v_now_us;
                v_two := 0;
            ELSIF v_two >= a_pers[i] THEN
                v_one := v_one + 1;
                v_two := 0;
            END IF;
            v_two := v_two + a_seconds[i];
            v_one := v_one + a_firsts[i] + v_two / a_pers[i];
            v_two := v_two % a_pers[i];
        ELSE
            v_period := counters_period(a_kinds[i], v_wall_us);
            IF v_one < v_period THEN
                v_one := v_period;
                v_two := 0;
            END IF;
            IF v_one = a_firsts[i] THEN
                v_two := v_two + a_seconds[i];
            ELSIF v_one < a_firsts[i] THEN
                v_one := a_firsts[i];
                v_two := a_seconds[i];
            END IF;
        END IF;
        v_firsts[i] := v_one;
        v_seconds[i] := v_two;
    END LOOP;
    UPDATE counters SET first = moved.first, second = moved.second
        FROM unnest(a_names, v_firsts, v_seconds) AS moved(counter, first, second)
        WHERE counters.counter = moved.counter;
END
$$;
