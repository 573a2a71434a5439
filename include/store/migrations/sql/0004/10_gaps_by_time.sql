-- Repaired gaps are kept as evidence; `candelabra status` asks for those of its window.
CREATE INDEX gaps_to_time ON ops.gaps (to_time);
