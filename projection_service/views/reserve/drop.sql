DROP TABLE reserve;
DROP TABLE reserve_assets;
