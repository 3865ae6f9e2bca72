-- Makes roles, the database, its extensions and all grants what desired.json says. Idempotent.
-- The server reads verifiers of passwords from a file, so that none is part of this text, and statements with one are kept out of its log.
\set desired `cat /etc/slipway/current/desired.json`
\set foreign_objects `cat /etc/slipway/current/foreign_objects.sql`
set log_min_error_statement = panic;
set log_min_duration_statement = -1;
set log_statement = 'none';
set log_min_duration_sample = -1;
set log_transaction_sample_rate = 0;
-- Nor do they come into pg_stat_activity and pg_stat_statements, which others than the superuser read.
set track_activities = off;
set pg_stat_statements.track_utility = off;
set client_min_messages = warning;
-- The standby that commits wait for may need a role of these to come.
set synchronous_commit = local;
begin;

select format('create role %I', name)
from jsonb_object_keys(:'desired'::jsonb -> 'roles') as name
where not exists (select from pg_roles where rolname = name)
\gexec
-- The superuser of a cluster that another program has created keeps its password, with which that program logs in again after an undo.
select format(
  'alter role %I with %s %s %s %s %s %s %s connection limit %s %s',
  name,
  case when (attributes ->> 'login')::bool then 'login' else 'nologin' end,
  case when (attributes ->> 'superuser')::bool then 'superuser' else 'nosuperuser' end,
  case when (attributes ->> 'createdb')::bool then 'createdb' else 'nocreatedb' end,
  case when (attributes ->> 'createrole')::bool then 'createrole' else 'nocreaterole' end,
  case when (attributes ->> 'replication')::bool then 'replication' else 'noreplication' end,
  case when (attributes ->> 'bypassrls')::bool then 'bypassrls' else 'nobypassrls' end,
  case when (attributes ->> 'inherit')::bool then 'inherit' else 'noinherit' end,
  attributes ->> 'connection_limit',
  case when name = 'postgres' and pg_read_file('slipway.superuser', 0, 100, true) like 'adopted%' then ''
    else format('password %L', pg_read_file('/run/secrets/role_verifiers')::jsonb ->> name) end
)
from jsonb_each(:'desired'::jsonb -> 'roles') as role (name, attributes)
\gexec
-- The comment is how a role that has left the inventory is known later on.
select format('comment on role %I is %L', name, 'Managed by Slipway')
from jsonb_object_keys(:'desired'::jsonb -> 'roles') as name
where name <> 'postgres'
\gexec

select format('revoke %I from %I granted by %I cascade', pg_get_userbyid(roleid), rolname, pg_get_userbyid(grantor))
from pg_auth_members join pg_roles on pg_roles.oid = member
where :'desired'::jsonb -> 'roles' ? rolname
  and not :'desired'::jsonb #> array['roles', rolname, 'member_of'] ? pg_get_userbyid(roleid)
\gexec
select format('grant %I to %I', membership, name)
from jsonb_each(:'desired'::jsonb -> 'roles') as role (name, attributes),
  jsonb_array_elements_text(attributes -> 'member_of') as membership
\gexec

-- A second login is the role itself from its first statement on: what it makes belongs to the role.
select format('alter role %I set role to %I', name, acts_as)
from jsonb_each_text(:'desired'::jsonb -> 'second_logins') as logins (name, acts_as)
\gexec

-- A role that has left the inventory may own data: it is locked out, not dropped.
select format('alter role %I with nologin password null', rolname)
from pg_roles
where not :'desired'::jsonb -> 'roles' ? rolname
  and shobj_description(oid, 'pg_authid') = 'Managed by Slipway'
\gexec
commit;
-- None of them can log in again.
select count(pg_terminate_backend(pid)) as ended
from pg_stat_activity join pg_roles on rolname = usename
where not :'desired'::jsonb -> 'roles' ? rolname
  and shobj_description(pg_roles.oid, 'pg_authid') = 'Managed by Slipway'
\gset

select format('create database %I owner %I', doc ->> 'name', doc ->> 'owner')
from (select :'desired'::jsonb -> 'database') as desired (doc)
where not exists (select from pg_database where datname = doc ->> 'name')
\gexec

-- A connection string to that database, quoted as libpq wants it.
select format(
  'dbname=''%s''',
  replace(replace(:'desired'::jsonb #>> '{database,name}', '\', '\\'), '''', '\''')
) as conninfo \gset
\connect -reuse-previous=on :"conninfo"
set log_min_error_statement = panic;
set log_min_duration_statement = -1;
set client_min_messages = warning;
set synchronous_commit = local;
begin;

-- What the former owner made goes to the new one; a superuser's objects include the server's own, so they and those of roles of another
-- program are taken one by one.
select format('reassign owned by %I to %I', pg_get_userbyid(datdba), doc ->> 'owner')
from pg_database join pg_roles on pg_roles.oid = datdba,
  (select :'desired'::jsonb -> 'database') as desired (doc)
where datname = current_database() and rolname <> doc ->> 'owner' and not rolsuper
\gexec
select format('alter %s %s owner to %I', replace(type, 'composite ', ''), identity, :'desired'::jsonb #>> '{database,owner}')
from (:foreign_objects) as found
\gexec
select format('alter database %I owner to %I', doc ->> 'name', doc ->> 'owner')
from (select :'desired'::jsonb -> 'database') as desired (doc)
\gexec

-- Databases that were made before PostgreSQL 15 let everyone create tables in public.
create schema if not exists public authorization pg_database_owner;
alter schema public owner to pg_database_owner;

-- Schemas that an account has for itself.
select format('create schema if not exists %I authorization %I', name, owner)
from jsonb_each_text(:'desired'::jsonb -> 'schemas') as schemas (name, owner)
union all
select format('alter schema %I owner to %I', name, owner)
from jsonb_each_text(:'desired'::jsonb -> 'schemas') as schemas (name, owner)
union all
select format('alter table %I.%I owner to %I', name, tablename, owner)
from jsonb_each_text(:'desired'::jsonb -> 'schemas') as schemas (name, owner)
join pg_tables on schemaname = name
\gexec

select format('create extension if not exists %I cascade', extension)
from jsonb_array_elements_text(:'desired'::jsonb -> 'extensions') as extension
\gexec

-- Of the database and the schema every declared role, and PUBLIC, has what is declared and no more.
select format('revoke all on %s from %s', object, grantee)
from unnest(array[format('database %I', current_database()), 'schema public']) as object,
  (
    select format('%I', name) from jsonb_object_keys(:'desired'::jsonb -> 'roles') as name
    where name not in (:'desired'::jsonb #>> '{database,owner}', 'postgres')
    union all
    select 'public'
  ) as everyone (grantee)
\gexec
select format('grant %s on database %I to %I', privilege, current_database(), grants.grantee)
from jsonb_each(:'desired'::jsonb -> 'database_privileges') as grants (grantee, privileges),
  jsonb_array_elements_text(privileges) as privilege
\gexec
select format('grant %s on schema public to %I', privilege, grants.grantee)
from jsonb_each(:'desired'::jsonb -> 'schema_privileges') as grants (grantee, privileges),
  jsonb_array_elements_text(privileges) as privilege
\gexec

-- Who may mark a moment in the WAL and have a segment finished: backups. PostgreSQL 14 names the first two otherwise, and does without.
select format('revoke all on function pg_catalog.%s from %I', marker, name)
from unnest(array['pg_backup_start(text,boolean)', 'pg_backup_stop(boolean)', 'pg_create_restore_point(text)', 'pg_switch_wal()']) as marker,
  jsonb_object_keys(:'desired'::jsonb -> 'roles') as name
where name <> 'postgres' and has_function_privilege(name, to_regprocedure('pg_catalog.' || marker), 'execute')
\gexec
select format('grant execute on function pg_catalog.%s to %I', marker, name)
from unnest(array['pg_backup_start(text,boolean)', 'pg_backup_stop(boolean)', 'pg_create_restore_point(text)', 'pg_switch_wal()']) as marker,
  jsonb_array_elements_text(:'desired'::jsonb -> 'wal_markers') as name
where to_regprocedure('pg_catalog.' || marker) is not null
\gexec

-- Tables to come.
select format('alter default privileges for role %I in schema public revoke all on %s from %s', creator, kind, grantee)
from unnest(array[:'desired'::jsonb #>> '{database,owner}', :'desired'::jsonb ->> 'writer']) as creator,
  unnest(array['tables', 'sequences']) as kind,
  (
    select format('%I', name) from jsonb_object_keys(:'desired'::jsonb -> 'roles') as name
    where name <> 'postgres'
    union all
    select 'public'
  ) as everyone (grantee)
where grantee <> format('%I', creator)
\gexec
select format('alter default privileges for role %I in schema public grant %s on %s to %I', creator, privilege, kind, grantee)
from jsonb_each(:'desired'::jsonb -> 'default_privileges') as by_creator (creator, grants),
  jsonb_each(grants) as by_grantee (grantee, kinds),
  jsonb_each(kinds) as by_kind (kind, privileges),
  jsonb_array_elements_text(privileges) as privilege
\gexec

-- Tables that are there already: those of the owner and of the application, not those of extensions.
select format('grant %s on %s %I.%I to %I', privilege, case relkind when 'S' then 'sequence' else 'table' end, nspname, relname, grants.grantee)
from pg_class
join pg_namespace on pg_namespace.oid = relnamespace,
  jsonb_each(:'desired'::jsonb -> 'table_privileges') as grants (grantee, kinds),
  jsonb_each(kinds) as by_kind (kind, privileges),
  jsonb_array_elements_text(privileges) as privilege
where nspname = 'public'
  and relkind in ('r', 'p', 'v', 'm', 'f', 'S')
  and kind = case relkind when 'S' then 'sequences' else 'tables' end
  and pg_get_userbyid(relowner) in (:'desired'::jsonb #>> '{database,owner}', :'desired'::jsonb ->> 'writer')
  and pg_get_userbyid(relowner) <> grants.grantee
  and not exists (select from pg_depend where classid = 'pg_class'::regclass and objid = pg_class.oid and deptype = 'e')
\gexec

commit;
