-- What is made of a mart of trades needs not be made anew for the whole session where the mart tells
-- which of its minutes it rebuilt.
ALTER TABLE ops.session_changes ADD COLUMN minutes tstzmultirange;
COMMENT ON COLUMN ops.session_changes.minutes IS
'Minutes of the session that were rebuilt; null where all sessions were.';
