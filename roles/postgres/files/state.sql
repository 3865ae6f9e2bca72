-- Prints what is really there, in the shape of desired.json, to be compared with it. Writes nothing.
\set desired `cat /etc/slipway/current/desired.json`
set default_transaction_read_only = on;
-- The server reads the verifiers itself: what a statement contains may get into its log, and is seen in pg_stat_activity.
\set has_verifiers `test -r /run/secrets/role_verifiers && echo true || echo false`
\set foreign_objects `cat /etc/slipway/current/foreign_objects.sql`
select exists (
  select from pg_database where datname = :'desired'::jsonb #>> '{database,name}'
) as has_database \gset
-- A connection string to that database, quoted as libpq wants it.
select format(
  'dbname=''%s''',
  replace(replace(:'desired'::jsonb #>> '{database,name}', '\', '\\'), '''', '\''')
) as conninfo \gset
\if :has_database
  \connect -reuse-previous=on :"conninfo"
  set default_transaction_read_only = on;
\endif
with
desired as materialized (
  select :'desired'::jsonb as doc, case when :has_verifiers then pg_read_file('/run/secrets/role_verifiers') else '{}' end::jsonb as verifiers
),
account as materialized (
  select role.*
  from pg_authid as role, desired
  where doc -> 'roles' ? rolname
),
-- PUBLIC is grantee 0.
grantee as materialized (
  select oid, rolname::text as name from account where rolname <> 'postgres'
  union all
  select 0, 'public'
),
database as materialized (
  select pg_database.* from pg_database, desired where datname = doc #>> '{database,name}'
),
-- Empty as long as the database is missing and this session is in another one.
schema as materialized (
  select pg_namespace.* from pg_namespace, database where nspname = 'public' and datname = current_database()
),
-- What others than the owner may do with the database and its schema, by grantee; a row for each of both, whatever there is.
privilege as (
  select object, coalesce(jsonb_object_agg(name, privileges) filter (where name is not null), '{}') as granted
  from (values ('database'), ('schema')) as either (object)
  left join (
    select object, name, jsonb_agg(privilege_type order by privilege_type collate "C") as privileges
    from (
      select 'database' as object, datdba as owner, coalesce(datacl, acldefault('d', datdba)) as acl from database
      union all
      select 'schema', nspowner, coalesce(nspacl, acldefault('n', nspowner)) from schema
    ) as owned
    cross join aclexplode(acl) as granted
    join grantee on grantee.oid = granted.grantee
    where granted.grantee <> owner
    group by object, name
  ) as found using (object)
  group by object
),
wanted_grant as (
  select rolname, kind.key as kind, privilege.value as privilege
  from desired,
    jsonb_each(doc -> 'table_privileges') as grants (grantee, kinds),
    jsonb_each(kinds) as kind,
    jsonb_array_elements_text(kind.value) as privilege,
    account
  where rolname = grants.grantee
),
relation as (
  select pg_class.oid, relname, case relkind when 'S' then 'sequences' else 'tables' end as kind
  from pg_class
  join schema on relnamespace = schema.oid
  join account on relowner = account.oid
  join desired on rolname in (doc #>> '{database,owner}', doc ->> 'writer')
  where relkind in ('r', 'p', 'v', 'm', 'f', 'S')
    and not exists (select from pg_depend where classid = 'pg_class'::regclass and objid = pg_class.oid and deptype = 'e')
)
select jsonb_build_object(
  'database', (
    select jsonb_build_object('name', datname, 'owner', pg_get_userbyid(datdba)) from database
  ),
  'writer', (select doc ->> 'writer' from desired),
  'roles', (
    select coalesce(jsonb_object_agg(rolname, jsonb_build_object(
      'bypassrls', rolbypassrls,
      'connection_limit', rolconnlimit,
      'createdb', rolcreatedb,
      'createrole', rolcreaterole,
      'inherit', rolinherit,
      'login', rolcanlogin,
      -- Inside the server, so that no hash leaves it. The superuser of a cluster that another program has created keeps its own.
      'password_as_declared', coalesce(rolpassword = verifiers ->> rolname, false)
        or rolname = 'postgres' and coalesce(pg_read_file('slipway.superuser', 0, 100, true) like 'adopted%', false),
      'replication', rolreplication,
      'superuser', rolsuper,
      'member_of', (
        select coalesce(jsonb_agg(distinct pg_get_userbyid(roleid) collate "C" order by pg_get_userbyid(roleid) collate "C"), '[]')
        from pg_auth_members where member = account.oid
      )
    )), '{}')
    from account, desired
  ),
  'undeclared_roles', (
    select coalesce(jsonb_agg(rolname order by rolname collate "C"), '[]')
    from pg_roles, desired
    where rolcanlogin and not doc -> 'roles' ? rolname
      and shobj_description(pg_roles.oid, 'pg_authid') = 'Managed by Slipway'
  ),
  'database_privileges', (select granted from privilege where object = 'database'),
  'foreign_objects', (
    select coalesce(jsonb_agg(type || ' ' || identity order by type collate "C", identity collate "C"), '[]')
    from (:foreign_objects) as found, schema
  ),
  'schema_owner', (select pg_get_userbyid(nspowner) from schema),
  'schema_privileges', (select granted from privilege where object = 'schema'),
  'default_privileges', (
    select coalesce(jsonb_object_agg(creator, grants), '{}')
    from (
      select creator, jsonb_object_agg(name, kinds) as grants
      from (
        select creator, name, jsonb_object_agg(kind, privileges) as kinds
        from (
          select account.rolname::text as creator, grantee.name,
            case defaclobjtype when 'S' then 'sequences' else 'tables' end as kind,
            jsonb_agg(privilege_type order by privilege_type collate "C") as privileges
          from pg_default_acl
          join schema on defaclnamespace = schema.oid
          join account on defaclrole = account.oid
          join desired on account.rolname in (doc #>> '{database,owner}', doc ->> 'writer')
          cross join aclexplode(defaclacl) as acl
          join grantee on grantee.oid = acl.grantee
          where defaclobjtype in ('r', 'S')
          group by 1, 2, 3
        ) as by_kind
        group by creator, name
      ) as by_grantee
      group by creator
    ) as found
  ),
  'table_privileges', (select doc -> 'table_privileges' from desired),
  'missing_table_privileges', (
    select coalesce(jsonb_agg(distinct format('%s: %s', rolname, relname) collate "C" order by format('%s: %s', rolname, relname) collate "C"), '[]')
    from relation join wanted_grant using (kind)
    where not case kind
      when 'sequences' then has_sequence_privilege(rolname, relation.oid, privilege)
      else has_table_privilege(rolname, relation.oid, privilege)
    end
  ),
  'wal_markers', (
    select coalesce(jsonb_agg(rolname || case when not whole then ' in part' else '' end order by rolname collate "C"), '[]')
    from account, lateral (
      select bool_or(granted) as any_of_them, bool_and(granted) as whole
      from unnest(array['pg_backup_start(text,boolean)', 'pg_backup_stop(boolean)', 'pg_create_restore_point(text)', 'pg_switch_wal()']) as marker,
        has_function_privilege(account.oid, to_regprocedure('pg_catalog.' || marker), 'execute') as granted
    ) as markers, schema
    where any_of_them and rolname <> 'postgres'
  ),
  'schemas', (
    select coalesce(jsonb_object_agg(pg_namespace.nspname, pg_get_userbyid(pg_namespace.nspowner)), '{}')
    from pg_namespace, desired, schema
    where doc -> 'schemas' ? pg_namespace.nspname
  ),
  'second_logins', (
    select coalesce(jsonb_object_agg(rolname, substr(setting, 6)), '{}')
    from pg_db_role_setting join account on account.oid = setrole, desired, unnest(setconfig) as setting
    where setdatabase = 0 and doc -> 'second_logins' ? rolname and setting like 'role=%'
  ),
  -- Not compared, these two: for the role, which refuses others. Of a verifier, a part too short to guess a password with, and long enough to
  -- know a given one by.
  'password_ids', (
    select jsonb_object_agg(rolname, left(encode(sha256(convert_to(rolpassword, 'UTF8')), 'hex'), 8))
    from account, desired where rolname in (doc #>> '{database,owner}', doc ->> 'writer')
  ),
  'known_roles', (select jsonb_agg(rolname order by rolname collate "C") from pg_roles),
  'available_extensions', (select jsonb_agg(name order by name collate "C") from pg_available_extensions),
  'extensions', (
    select coalesce(jsonb_agg(extname order by extname collate "C"), '[]')
    from pg_extension, desired, schema
    where doc -> 'extensions' ? extname
  )
);
