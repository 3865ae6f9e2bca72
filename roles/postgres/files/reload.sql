-- Makes the running server read its configuration again. The server keeps the old pg_hba.conf without a word to the client
-- when the new one has a mistake, hence the look first. Both views read the files as they are on disk now.
do $$
declare
  mistake text;
begin
  select format('pg_hba.conf, line %s: %s', line_number, error) into mistake
  from pg_hba_file_rules where error is not null limit 1;
  if mistake is null then
    -- A setting that needs a restart is not an error: its change re-creates the container, which then has it.
    select format('%s, line %s: %s: %s', sourcefile, sourceline, name, error) into mistake
    from pg_file_settings
    where error is not null and name not in (select name from pg_settings where context = 'postmaster')
    limit 1;
  end if;
  if mistake is not null then
    raise exception '%', mistake;
  end if;
end
$$;
select pg_reload_conf();
