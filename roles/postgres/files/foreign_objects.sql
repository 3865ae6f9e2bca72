-- What others own in this database and the product's owner should: superusers, but for the server's own and what belongs to extensions, and
-- in the product's schema, public, roles that no inventory names. A dump that was loaded as postgres, and tables of an adopted cluster, are
-- such; the application may not even read them. A role that is a group of those that can log in keeps what it owns, as
-- the application's second login is a member of it, and locked after a rotation; any keeps its own schemas.
select pg_identify_object.type, pg_identify_object.identity
from (
  -- A sequence of a column goes with its table.
  select 'pg_class'::regclass as class, oid as object, relowner as owner, relnamespace as namespace
  from pg_class
  where relkind in ('r', 'p', 'v', 'm', 'f')
    or relkind = 'S' and not exists (
      select from pg_depend where classid = 'pg_class'::regclass and objid = pg_class.oid and deptype in ('a', 'i')
    )
  union all
  select 'pg_proc'::regclass, oid, proowner, pronamespace from pg_proc
  union all
  -- The types of tables, arrays and multiranges go with what they belong to.
  select 'pg_type'::regclass, pg_type.oid, typowner, typnamespace
  from pg_type left join pg_class on pg_class.oid = typrelid
  where typtype in ('d', 'e', 'r') or relkind = 'c'
  union all
  select 'pg_namespace'::regclass, oid, nspowner, oid from pg_namespace where nspname <> 'public'
) as owned
join pg_namespace on pg_namespace.oid = namespace
join pg_roles on pg_roles.oid = owner,
  pg_identify_object(class, object, 0)
where (
    rolsuper
    or nspname = 'public'
    and rolname !~ '^pg_'
    -- A role that has left the inventory and owns something here was the application's: no other one can create in this schema.
    and (shobj_description(pg_roles.oid, 'pg_authid') is distinct from 'Managed by Slipway' or not rolcanlogin)
    and not exists (
      select from pg_auth_members join pg_roles as members on members.oid = member
      where roleid = pg_roles.oid and members.rolcanlogin and shobj_description(member, 'pg_authid') = 'Managed by Slipway'
    )
  )
  and nspname <> 'information_schema' and nspname !~ '^pg_'
  and not exists (select from pg_depend where classid = class and objid = object and deptype = 'e')
