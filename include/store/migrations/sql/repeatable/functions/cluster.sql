CREATE OR REPLACE FUNCTION ops.system_identifier() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ SELECT system_identifier::text FROM pg_control_system() $$;
COMMENT ON FUNCTION ops.system_identifier() IS
'Identifier of the cluster. Transaction ids and snapshots are meaningless on another cluster.';
