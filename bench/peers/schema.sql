create table tenants (id text primary key, name text not null, active boolean not null);
create table integrations (
    id text primary key, tenant_id text not null references tenants, base_url text not null,
    kod text not null, sifre text not null, enabled boolean not null);
create table routes (
    tenant_id text not null, package_id text not null, mode text not null, provider_type text not null,
    primary_integration text not null references integrations, primary key (tenant_id, package_id));
create table mappings (
    tenant_id text not null, package_id text not null, integration_id text not null references integrations,
    oyun text not null, kupur text not null, primary key (tenant_id, package_id, integration_id));
create table orders (
    id text primary key, tenant_id text not null, package_id text not null, quantity int not null,
    user_identifier text not null, status text not null, external_status text not null, integration_id text,
    provider_referans varchar(255), pin text, cost numeric, balance numeric, message text, checks int not null,
    created_at timestamptz not null, sent_at timestamptz, last_sync_at timestamptz, completed_at timestamptz);
create index idx_orders_provider_referans on orders (provider_referans);
create table order_notes (
    id bigint generated always as identity primary key, order_id text not null, at timestamptz not null,
    text text not null);
create index idx_order_notes_order on order_notes (order_id);
