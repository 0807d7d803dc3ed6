CREATE TABLE meta (
  id BIGINT NOT NULL PRIMARY KEY,
  schema_version BIGINT NOT NULL,
  cluster_id BLOB NOT NULL,
  bundle BLOB NOT NULL
);
CREATE TABLE log_head (
  id BIGINT NOT NULL PRIMARY KEY,
  log_epoch BIGINT NOT NULL,
  size BIGINT NOT NULL,
  frontier BLOB NOT NULL,
  last_time BIGINT NOT NULL,
  catalogue_revision BIGINT NOT NULL
);
CREATE TABLE segments (
  first_index BIGINT NOT NULL PRIMARY KEY,
  count BIGINT NOT NULL,
  batch_id BLOB NOT NULL UNIQUE,
  segment BLOB NOT NULL
);
CREATE TABLE checkpoints (
  size BIGINT NOT NULL PRIMARY KEY,
  time BIGINT NOT NULL,
  checkpoint BLOB NOT NULL,
  frontier BLOB NOT NULL
);
CREATE TABLE keys (
  tenant TEXT NOT NULL,
  key_id BLOB NOT NULL,
  name TEXT NOT NULL,
  spec TEXT NOT NULL,
  usage TEXT NOT NULL,
  protection TEXT NOT NULL,
  state TEXT NOT NULL,
  state_before TEXT,
  destroys BIGINT,
  destruction_asked BIGINT,
  destruction_asked_by TEXT,
  current_version BIGINT NOT NULL,
  creator TEXT NOT NULL,
  created BIGINT NOT NULL,
  activates BIGINT,
  expires BIGINT,
  attributes BLOB NOT NULL,
  revision BIGINT NOT NULL,
  mac BLOB NOT NULL,
  PRIMARY KEY (tenant, key_id),
  UNIQUE (tenant, name)
);
CREATE INDEX keys_activates ON keys (activates);
CREATE INDEX keys_expires ON keys (expires);
CREATE INDEX keys_destroys ON keys (destroys);
CREATE TABLE aliases (
  tenant TEXT NOT NULL,
  name TEXT NOT NULL,
  key_id BLOB NOT NULL,
  changed BIGINT NOT NULL,
  mac BLOB NOT NULL,
  PRIMARY KEY (tenant, name)
);
CREATE INDEX aliases_key ON aliases (tenant, key_id);
CREATE TABLE key_versions (
  tenant TEXT NOT NULL,
  key_id BLOB NOT NULL,
  version BIGINT NOT NULL,
  origin TEXT NOT NULL,
  state TEXT NOT NULL,
  state_before TEXT,
  destroys BIGINT,
  destruction_asked BIGINT,
  destruction_asked_by TEXT,
  created BIGINT NOT NULL,
  hsm_object BLOB,
  wrapped BLOB,
  check_value BLOB,
  public_key BLOB,
  mac BLOB NOT NULL,
  PRIMARY KEY (tenant, key_id, version)
);
CREATE INDEX key_versions_destroys ON key_versions (destroys);
CREATE TABLE encryption_counts (
  tenant TEXT NOT NULL,
  key_id BLOB NOT NULL,
  version BIGINT NOT NULL,
  taken BIGINT NOT NULL,
  mac BLOB NOT NULL,
  PRIMARY KEY (tenant, key_id, version)
);
CREATE TABLE imports (
  tenant TEXT NOT NULL,
  import_id BLOB NOT NULL,
  spec TEXT NOT NULL,
  hsm_object BLOB,
  wrapped BLOB,
  public_key BLOB,
  creator TEXT NOT NULL,
  created BIGINT NOT NULL,
  expires BIGINT NOT NULL,
  mac BLOB NOT NULL,
  PRIMARY KEY (tenant, import_id)
);
CREATE INDEX imports_expires ON imports (expires);
CREATE TABLE destructions (
  tenant TEXT NOT NULL,
  key_id BLOB NOT NULL,
  time BIGINT NOT NULL,
  certificate BLOB NOT NULL,
  PRIMARY KEY (tenant, key_id, time)
);
CREATE TABLE idempotency (
  tenant TEXT NOT NULL,
  principal TEXT NOT NULL,
  method TEXT NOT NULL,
  token BLOB NOT NULL,
  request_digest BLOB NOT NULL,
  key_id BLOB NOT NULL,
  expires BIGINT NOT NULL,
  PRIMARY KEY (tenant, principal, method, token)
);
CREATE INDEX idempotency_expires ON idempotency (expires);
CREATE TABLE data_keys (
  tenant TEXT NOT NULL,
  data_key_id BLOB NOT NULL,
  name TEXT NOT NULL,
  spec TEXT NOT NULL,
  key_id BLOB NOT NULL,
  state TEXT NOT NULL,
  since BIGINT NOT NULL,
  rotation_days BIGINT NOT NULL,
  current_version BIGINT NOT NULL,
  creator TEXT NOT NULL,
  created BIGINT NOT NULL,
  revision BIGINT NOT NULL,
  mac BLOB NOT NULL,
  PRIMARY KEY (tenant, data_key_id),
  UNIQUE (tenant, name)
);
CREATE TABLE data_key_versions (
  tenant TEXT NOT NULL,
  data_key_id BLOB NOT NULL,
  version BIGINT NOT NULL,
  state TEXT NOT NULL,
  since BIGINT NOT NULL,
  created BIGINT NOT NULL,
  key_id BLOB NOT NULL,
  key_version BIGINT NOT NULL,
  ciphertext BLOB,
  mac BLOB NOT NULL,
  PRIMARY KEY (tenant, data_key_id, version)
);
CREATE INDEX data_key_versions_key ON data_key_versions (tenant, key_id);
