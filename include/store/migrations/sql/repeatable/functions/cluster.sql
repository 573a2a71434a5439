CREATE OR REPLACE FUNCTION ops.system_identifier() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ SELECT system_identifier::text FROM pg_control_system() $$;
COMMENT ON FUNCTION ops.system_identifier() IS
'Identifies the cluster: transaction ids and snapshots mean nothing on another one.';
