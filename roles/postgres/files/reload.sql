-- Makes the running server read its configuration again. The server keeps the old pg_hba.conf without a word to the client
-- when the new one has a mistake, hence the look first. Both views read the files as they are on disk now.
do $$
declare
  mistake text;
begin
  select format('pg_hba.conf, line %s: %s', line_number, error) into mistake
  from pg_hba_file_rules where error is not null limit 1;
  if mistake is null then
    -- This one error is no mistake: the setting needs a restart, which the new container label brings about.
    select format('%s, line %s: %s', sourcefile, sourceline, error) into mistake
    from pg_file_settings where error is not null and error <> 'setting could not be applied' limit 1;
  end if;
  if mistake is not null then
    raise exception '%', mistake;
  end if;
end
$$;
select pg_reload_conf();
