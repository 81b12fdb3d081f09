DROP TABLE reserve;
