CREATE SCHEMA shop;
CREATE TABLE public.customer (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name varchar(40) NOT NULL,
    email text UNIQUE,
    balance numeric(12,2) DEFAULT 0 NOT NULL CHECK (balance >= 0),
    tags text[] DEFAULT '{}',
    profile jsonb,
    created timestamp with time zone DEFAULT now() NOT NULL
);
COMMENT ON TABLE public.customer IS 'who buys';
COMMENT ON COLUMN public.customer.name IS 'as printed';
CREATE TABLE public.item (
    id serial PRIMARY KEY,
    code char(8) NOT NULL,
    price numeric(8,2),
    gross numeric GENERATED ALWAYS AS (price * 1.2) STORED,
    size smallint DEFAULT 1,
    CONSTRAINT item_price_size CHECK (price > 0 AND size < 100),
    CONSTRAINT item_code_size UNIQUE (code, size)
);
CREATE TABLE shop.purchase (
    customer_id integer NOT NULL REFERENCES public.customer ON DELETE CASCADE,
    item_id integer NOT NULL,
    at date NOT NULL,
    amount bigint,
    note text,
    CONSTRAINT purchase_pk PRIMARY KEY (customer_id, item_id, at),
    CONSTRAINT purchase_item FOREIGN KEY (item_id) REFERENCES public.item (id) ON UPDATE CASCADE ON DELETE SET NULL
);
CREATE INDEX customer_lower_email ON public.customer (lower(email));
CREATE INDEX item_big ON public.item (size DESC, price) WHERE size > 10;
CREATE UNIQUE INDEX item_code_price ON public.item (code) INCLUDE (price);
CREATE SEQUENCE public.counter AS integer INCREMENT BY 5 START WITH 10 CYCLE MAXVALUE 1000;
CREATE VIEW public.rich AS SELECT id, name FROM public.customer WHERE balance > 1000;
CREATE TABLE public.log (at timestamp(3) without time zone, line text);
