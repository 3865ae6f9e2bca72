-- Drops the slot for which the server keeps WAL until the backups have it. Its receiver may run on a host that goes on.
do $$
begin
  for attempt in 1 .. 50 loop
    perform pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = 'slipway_backup' and active;
    begin
      perform pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = 'slipway_backup';
      return;
    exception when object_in_use then
      perform pg_sleep(0.1);
    end;
  end loop;
  raise exception 'it is in use';
end
$$
